"""What both clients share, without I/O: the channel's options, and the conversions to and from the contract."""

from __future__ import annotations

import binascii
import operator
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from custommsg.errors import FieldViolation, InvalidRequest, Reason
from custommsg.model import (
    MAX_MESSAGE_SIZE,
    MAX_TYPE,
    MIN_MESSAGE_SIZE,
    Checked,
    Consumer,
    Enqueued,
    Inbox,
    Info,
    Node,
    OutboxEntry,
    OutboxState,
    Peer,
    Sent,
)
from custommsg.v1 import custommsg_pb2 as pb

NODE_ID_SIZE: Final = 33
"""Bytes."""

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Only this client decides what is retried (see _retry): not gRPC itself, and not a retry policy in a service
    # config that gRPC could find through DNS.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # The gateway is a local service: an http_proxy in the environment is not meant for it.
    ("grpc.enable_http_proxy", 0),
    # gRPC's own waits between connection attempts grow to 2 minutes: too long for a gateway that restarts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A subscriber sends nothing, so only a keepalive ping shows that a connection is dead. It pings while a call is
    # open, and gives up after 10 s of silence. (gRPC waits for the second timeout, 1 minute by default; the first
    # one becomes TCP_USER_TIMEOUT.) The gateway's heartbeats keep it from counting the pings as too many.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)

# sun_path has 108 bytes with the closing zero (unix(7)).
_MAX_SOCKET_PATH: Final = 107
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):([0-9]{1,5})", re.ASCII)


def target(address: str) -> str:
    """Check the gateway's address: "host:port", "[ipv6]:port" or "unix:/path".

    gRPC accepts nearly anything: it takes port 99999 as 34463, and a missing port as 443.

    Raises:
        ValueError: the address is invalid, or the path is too long for a socket.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").encode()
        if not 0 < len(path) <= _MAX_SOCKET_PATH:
            raise ValueError(
                f"{address!r} is not a valid gateway address: a socket's path has 1 to {_MAX_SOCKET_PATH} bytes"
            )
        return address
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match[2]) <= 65_535:
        raise ValueError(f"{address!r} is not a valid gateway address: give host:port or unix:/path")
    return address


def send_request(
    peer: bytes | str,
    *,
    type: int | None,
    payload: bytes | None,
    msg: bytes | str | None,
    our_node: bytes | str | None,
    validate_only: bool,
    key: str | None = None,
) -> pb.SendCustomMsgRequest:
    """Build the request of `send` and `check`.

    Raises:
        InvalidRequest, TypeError: as `message` and `peer_id`.
    """
    outbound = pb.OutboundMsg(
        msg=message(type=type, payload=payload, msg=msg),
        peer_id=peer_id(peer),
        node_id=node_id(our_node),
        idempotency_key=idempotency_key(key),
    )
    return pb.SendCustomMsgRequest(message=outbound, validate_only=validate_only)


def enqueue_request(
    peer: bytes | str,
    *,
    type: int | None,
    payload: bytes | None,
    msg: bytes | str | None,
    key: str | None,
    ttl: float | timedelta | None,
    expires: datetime | None,
    at_least_once: bool,
    our_node: bytes | str | None,
) -> pb.EnqueueCustomMsgRequest:
    """Build the request of `enqueue`.

    Raises:
        InvalidRequest, TypeError: as `message` and `peer_id`; INVALID_IDEMPOTENCY_KEY.
        TypeError: both `ttl` and `expires`.
        ValueError: `expires` has no time zone.
    """
    outbound = pb.OutboundMsg(
        msg=message(type=type, payload=payload, msg=msg),
        peer_id=peer_id(peer),
        node_id=node_id(our_node),
        idempotency_key=idempotency_key(key),
    )
    request = pb.OutboxMsg(outbound=outbound, at_least_once=at_least_once)
    if ttl is not None and expires is not None:
        raise TypeError("give either ttl= or expires=, not both")
    if ttl is not None:
        request.ttl.FromTimedelta(ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl))
    elif expires is not None:
        if expires.tzinfo is None:
            raise ValueError("expires= has no time zone: give datetime.now(UTC) + ..., for example")
        request.expire_time.FromDatetime(expires)
    return pb.EnqueueCustomMsgRequest(message=request)


def idempotency_key(key: str | None) -> str:
    """Check that an idempotency key is not empty: to the gateway, an empty one means "no key".

    Raises:
        InvalidRequest: INVALID_IDEMPOTENCY_KEY.
    """
    if key == "":
        text = "The idempotency key is empty: give 1 to 100 printable ASCII characters, or None."
        raise invalid(Reason.INVALID_IDEMPOTENCY_KEY, "idempotency_key", text)
    return key or ""


def one_entry(entry_id: str | None, key: str | None) -> dict[str, str]:
    """Return the fields that name an entry.

    Raises:
        TypeError: neither an id nor a key is given, or both are.
    """
    if (entry_id is None) == (key is None):
        raise TypeError("give either the id of the entry, or key=")
    return {"entry_id": entry_id} if entry_id is not None else {"idempotency_key": idempotency_key(key)}


def outbox_request(
    states: Iterable[OutboxState] | None, peers: Iterable[bytes | str] | None, our_node: bytes | str | None
) -> pb.ListOutboxRequest:
    """Build the request for the first page of `outbox`.

    Raises:
        InvalidRequest: INVALID_NODE_ID, or INVALID_FILTER for an empty list.
    """
    request = pb.ListOutboxRequest(node_id=node_id(our_node))
    if states is not None:
        request.states.extend(pb.OutboxState.Value(f"OUTBOX_STATE_{state.name}") for state in states)
    if peers is not None:
        request.peer_ids.extend(peer_id(one, "peer_ids") for one in peers)
    for given, found, field in (
        (states, request.states, "states"),
        (peers, request.peer_ids, "peer_ids"),
    ):
        if given is not None and not found:
            raise invalid(Reason.INVALID_FILTER, field, f"The list of {field} is empty: give None for all.")
    return request


def enqueued(response: pb.EnqueueCustomMsgResponse) -> Enqueued:
    """Convert the response to `enqueue`."""
    return Enqueued(entry_id=response.entry_id, state=outbox_state(response.state), existed=response.existed)


def outbox_state(number: pb.OutboxState.ValueType) -> OutboxState:
    """Convert a state; one of a newer gateway is UNKNOWN."""
    names = {value: name.removeprefix("OUTBOX_STATE_") for name, value in pb.OutboxState.items()}
    return OutboxState.__members__.get(names.get(number, ""), OutboxState.UNKNOWN)


def reason_name(number: pb.Reason.ValueType) -> str:
    """Convert a reason to its name; empty if there is none."""
    names = {value: name.removeprefix("REASON_") for name, value in pb.Reason.items()}
    return names.get(number, str(number)) if number else ""


def outbox_entry(raw: pb.OutboxEntry) -> OutboxEntry:
    """Convert an entry of the outbox."""
    return OutboxEntry(
        id=raw.id,
        node_id=raw.node_id,
        peer_id=raw.peer_id,
        type=raw.message.type,
        payload=raw.message.payload,
        idempotency_key=raw.idempotency_key,
        state=outbox_state(raw.state),
        reason=reason_name(raw.reason),
        at_least_once=raw.at_least_once,
        direct=raw.direct,
        attempts=raw.attempts,
        caller=raw.caller,
        created=raw.create_time.ToDatetime(tzinfo=UTC),
        updated=raw.update_time.ToDatetime(tzinfo=UTC),
        expires=raw.expire_time.ToDatetime(tzinfo=UTC) if raw.HasField("expire_time") else None,
    )


def message(*, type: int | None, payload: bytes | None, msg: bytes | str | None) -> bytes:
    """Return the bytes of a message that is given in either way.

    Only what can be seen without the node is checked here. Whether the type may be sent, and whether the peer's id
    is a point on the curve, is for the gateway to say.

    Raises:
        InvalidRequest: INVALID_MESSAGE.
        TypeError: neither `type` nor `msg` is given, or both are; or the payload is not bytes.
    """
    if type is not None and msg is None:
        return _join(type, payload)
    if msg is not None and type is None and payload is None:
        return _message(msg)
    raise TypeError("give the message either as type= and payload=, or as msg=")


def peer_id(value: bytes | str, field: str = "peer_id") -> bytes:
    """Return a peer's node id as bytes: it is given as 33 bytes, or as 66 hex digits.

    Raises:
        InvalidRequest: INVALID_NODE_ID, for the field.
    """
    return _node_id(value, field, "Copy it from `custommsg peers` or `lightning-cli listpeers`.")


def node_id(value: bytes | str | None) -> bytes:
    """Return the id of our node as bytes; empty if it is not given: then it is the gateway's only node.

    Raises:
        InvalidRequest: INVALID_NODE_ID.
    """
    if value is None:
        return b""
    return _node_id(value, "node_id", "Copy it from `custommsg info` or `lightning-cli getinfo`.")


def consumer_name(name: str) -> str:
    """Check that a consumer's name is not empty: to the gateway, an empty one means "no name".

    Raises:
        InvalidRequest: INVALID_CONSUMER.
    """
    if not name:
        text = "The consumer's name is empty: give 1 to 100 of A-Z a-z 0-9 . _ -"
        raise invalid(Reason.INVALID_CONSUMER, "consumer", text)
    return name


def position(value: str, field: str) -> str:
    """Check that a position is text and not empty: to the gateway, an empty one means "no position".

    Raises:
        InvalidRequest: INVALID_POSITION, for the field.
        TypeError: it is not text.
    """
    if not isinstance(value, str):
        raise TypeError(f"a position is text, as an event or a subscription gave it, not {value!r}")
    if not value:
        text = "The position is empty: take it from an event or a subscription."
        raise invalid(Reason.INVALID_POSITION, field, text)
    return value


def sent(response: pb.SendCustomMsgResponse) -> Sent:
    """Convert the response to `send`."""
    return Sent(status=response.status, type=response.type)


def checked(response: pb.SendCustomMsgResponse) -> Checked:
    """Convert the response to `check`."""
    return Checked(status=response.status, type=response.type)


def peer(raw: pb.Peer) -> Peer:
    """Convert a peer."""
    return Peer(
        peer_id=raw.peer_id, connected=raw.connected, address=raw.address, num_channels=raw.num_channels
    )


def info(response: pb.GetInfoResponse) -> Info:
    """Convert the response to `info`."""
    node = response.node
    return Info(
        gateway_version=response.gateway_version,
        node_link_up=response.node_link_up,
        node=Node(node_id=node.node_id, alias=node.alias, network=node.network, version=node.version)
        if response.HasField("node")
        else None,
    )


def consumer(raw: pb.Consumer) -> Consumer:
    """Convert a named consumer."""
    return Consumer(
        name=raw.name,
        position=raw.position,
        lag=raw.lag,
        updated=raw.updated.ToDatetime(tzinfo=UTC),
        expired=raw.expired,
    )


def inbox(response: pb.GetInboxResponse) -> Inbox:
    """Convert the response to `inbox`."""
    return Inbox(
        earliest=response.earliest,
        latest=response.latest,
        count=response.count,
        size=response.size,
        oldest=response.oldest.ToDatetime(tzinfo=UTC) if response.HasField("oldest") else None,
        attached=response.attached,
        error=response.error,
    )


def invalid(reason: Reason, field: str, message: str) -> InvalidRequest:
    """Make the error that the gateway would answer with."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    return InvalidRequest(reason, code, message, violations=(FieldViolation(field, message),))


def _node_id(value: bytes | str, field: str, hint: str) -> bytes:
    try:
        raw = _bytes(value)
    except ValueError as error:
        problem = str(error)
    else:
        if len(raw) == NODE_ID_SIZE:
            return raw
        problem = f"it has {len(raw)} bytes instead of {NODE_ID_SIZE}"
    raise invalid(Reason.INVALID_NODE_ID, field, f"The node id is invalid: {problem}. {hint}")


def _message(msg: bytes | str) -> bytes:
    try:
        raw = _bytes(msg)
    except ValueError as error:
        raise _invalid_message(str(error)) from None
    if not MIN_MESSAGE_SIZE <= len(raw) <= MAX_MESSAGE_SIZE:
        raise _invalid_message(
            f"it has {len(raw)} bytes; a message has {MIN_MESSAGE_SIZE} to {MAX_MESSAGE_SIZE:,}, its 2-byte type"
            " included"
        )
    return raw


def _join(type: int, payload: bytes | None) -> bytes:
    number = operator.index(type)
    if not 0 <= number <= MAX_TYPE:
        raise _invalid_message(f"its type is {number}; a type is a number from 0 to {MAX_TYPE:,}")
    if isinstance(payload, str):
        raise TypeError("a payload is bytes: encode the text first")
    return _message(number.to_bytes(2, "big") + (payload or b""))


def _bytes(value: bytes | str) -> bytes:
    """Return bytes as they are, and text as what its hex digits mean.

    Raises:
        ValueError: the text has an odd number of characters, or some that are not hex digits.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return bytes(memoryview(value))  # memoryview() refuses an int, of which bytes() would make zeros
    if len(value) % 2:
        raise ValueError(f"it has {len(value)} hex digits, an odd number")
    try:
        return binascii.unhexlify(value)
    except ValueError:  # binascii.Error, or a character that is not ASCII
        raise ValueError("it has characters that are not hex digits") from None


def _invalid_message(problem: str) -> InvalidRequest:
    return invalid(Reason.INVALID_MESSAGE, "msg", f"The message is invalid: {problem}.")
