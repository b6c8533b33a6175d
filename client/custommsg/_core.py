"""What both clients share, without I/O: where to connect, what to ask, what the answers mean."""

from __future__ import annotations

import binascii
import operator
import re
from collections.abc import Sequence
from datetime import UTC
from typing import Final

import grpc

from custommsg.errors import FieldViolation, InvalidRequest, Reason
from custommsg.model import Checked, Consumer, Inbox, Info, Node, Peer, Sent
from custommsg.v1 import custommsg_pb2 as pb

DEFAULT_ADDRESS: Final = "127.0.0.1:9737"
"""Where a gateway listens unless told otherwise."""

NODE_ID_SIZE: Final = 33
MIN_MESSAGE_SIZE: Final = 2
MAX_MESSAGE_SIZE: Final = 65_535
MAX_TYPE: Final = 65_535

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Only this client decides what is tried again (see _retry): neither gRPC by itself, nor a retry policy
    # that a service config, found through DNS, could bring along.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # The gateway stands beside its callers: an http_proxy of the environment is not meant for it.
    ("grpc.enable_http_proxy", 0),
    # A gateway that is back is found soon, and not after gRPC's own waits, which grow to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A subscriber sends nothing, so nothing else would tell it that the other end is gone without a word:
    # it asks while a call is open, and takes 10 s of silence for an answer. (Of the two timeouts the second
    # one counts, of a minute unless it is set; the first one becomes TCP_USER_TIMEOUT.) The gateway's
    # heartbeats keep the gateway from finding that it is asked too often.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)

# sun_path holds 108 bytes with the closing zero (unix(7)).
_MAX_SOCKET_PATH: Final = 107
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):([0-9]{1,5})", re.ASCII)


def target(address: str) -> str:
    """Check the gateway's address: "host:port", "[ipv6]:port" or "unix:/path".

    gRPC itself takes nearly anything: port 99999 becomes 34463, a missing port 443.

    Raises:
        ValueError: it is none of these, or the path is too long for a socket.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").encode()
        if not 0 < len(path) <= _MAX_SOCKET_PATH:
            raise ValueError(
                f"{address!r} is no address of a gateway: a socket's path has 1 to {_MAX_SOCKET_PATH} bytes"
            )
        return address
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match[2]) <= 65_535:
        raise ValueError(f"{address!r} is no address of a gateway: give host:port or unix:/path")
    return address


def send_request(
    peer: bytes | str,
    *,
    type: int | None,
    payload: bytes | None,
    msg: bytes | str | None,
    validate_only: bool,
) -> pb.SendCustomMsgRequest:
    """Build the request of `send` and of `check`.

    Raises:
        InvalidRequest, TypeError: as `message` and `node_id`.
    """
    raw = message(type=type, payload=payload, msg=msg)
    return pb.SendCustomMsgRequest(node_id=node_id(peer), msg=raw, validate_only=validate_only)


def message(*, type: int | None, payload: bytes | None, msg: bytes | str | None) -> bytes:
    """Read a message, given in either way: its type and what follows it, 2 to 65,535 bytes.

    What cannot be a message is found here and not sent to the gateway; whether the type is one that may be
    sent, and the node id a point on the curve, is for the gateway and the node to say.

    Raises:
        InvalidRequest: INVALID_MESSAGE.
        TypeError: not one of `type` (with or without `payload`) and `msg`; or a payload that is not bytes.
    """
    if type is not None and msg is None:
        return _join(type, payload)
    if msg is not None and type is None and payload is None:
        return _message(msg)
    raise TypeError("give the message either as type= and payload=, or as msg=")


def sent(response: pb.SendCustomMsgResponse) -> Sent:
    """Read the answer to `send`."""
    return Sent(status=response.status, type=response.type)


def checked(response: pb.SendCustomMsgResponse) -> Checked:
    """Read the answer to `check`."""
    return Checked(status=response.status, type=response.type)


def peers(response: pb.ListPeersResponse) -> list[Peer]:
    """Read the answer to `peers`."""
    return [
        Peer(
            node_id=peer.node_id,
            connected=peer.connected,
            address=peer.address,
            num_channels=peer.num_channels,
        )
        for peer in response.peers
    ]


def info(response: pb.GetInfoResponse) -> Info:
    """Read the answer to `info`."""
    node = response.node
    return Info(
        gateway_version=response.gateway_version,
        node_link_up=response.node_link_up,
        node=Node(node_id=node.node_id, alias=node.alias, network=node.network, version=node.version)
        if response.HasField("node")
        else None,
    )


def consumers(response: pb.ListConsumersResponse) -> list[Consumer]:
    """Read the answer to `consumers`."""
    return [
        Consumer(
            name=consumer.name,
            position=consumer.position,
            lag=consumer.lag,
            updated=consumer.updated.ToDatetime(tzinfo=UTC),
            expired=consumer.expired,
        )
        for consumer in response.consumers
    ]


def inbox(response: pb.GetInboxResponse) -> Inbox:
    """Read the answer to `inbox`."""
    return Inbox(
        inbox_id=response.inbox_id,
        earliest=response.earliest,
        latest=response.latest,
        count=response.count,
        size=response.size,
        oldest=response.oldest.ToDatetime(tzinfo=UTC) if response.HasField("oldest") else None,
        attached=response.attached,
        error=response.error,
    )


def node_id(peer: bytes | str) -> bytes:
    """Read a node id: 33 bytes, or 66 hex digits.

    Raises:
        InvalidRequest: INVALID_NODE_ID.
    """
    try:
        raw = _bytes(peer)
    except ValueError as error:
        raise _invalid_node_id(str(error)) from None
    if len(raw) != NODE_ID_SIZE:
        raise _invalid_node_id(f"it has {len(raw)} bytes, not {NODE_ID_SIZE}")
    return raw


def _message(msg: bytes | str) -> bytes:
    try:
        raw = _bytes(msg)
    except ValueError as error:
        raise _invalid_message(str(error)) from None
    if not MIN_MESSAGE_SIZE <= len(raw) <= MAX_MESSAGE_SIZE:
        raise _invalid_message(
            f"it has {len(raw)} bytes; a message has its 2-byte type, and {MAX_MESSAGE_SIZE:,} at most"
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
    """Take bytes as they are, and text as hex digits: nothing but digits, and an even number of them."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return bytes(memoryview(value))  # a memoryview refuses an int, of which bytes() would make zeros
    if len(value) % 2:
        raise ValueError(f"it has {len(value)} hex digits, an odd number")
    try:
        return binascii.unhexlify(value)
    except ValueError:  # binascii.Error, or a character beyond ASCII
        raise ValueError("it has characters that are not hex digits") from None


def _invalid_node_id(what: str) -> InvalidRequest:
    message = f"This is no node id: {what}. Copy it from `custommsg peers` or `lightning-cli listpeers`."
    return invalid(Reason.INVALID_NODE_ID, "node_id", message)


def _invalid_message(what: str) -> InvalidRequest:
    return invalid(Reason.INVALID_MESSAGE, "msg", f"This is no message: {what}.")


def invalid(reason: Reason, field: str, message: str) -> InvalidRequest:
    """Make the error that the gateway would answer with."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    return InvalidRequest(reason, code, message, violations=(FieldViolation(field, message),))
