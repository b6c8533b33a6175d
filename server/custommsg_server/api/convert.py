"""Conversions between the contract's messages and the core's values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api import outbox_convert
from custommsg_server.api.status import status_of
from custommsg_server.core.mailbox import State, SubscribeRequest
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.domain.wire import Message, NodeId
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Consumer, Event, Position, Start
from custommsg_server.node.port import NodeInfo, Outbound, Peer

MAX_FILTER: Final = 1000
"""The maximum number of entries in each list of a filter: reading more would block the event loop."""
_CONSUMER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_KEY: Final = re.compile(r"[!-~]{1,100}")
_REASONS: Final = {reason: pb.Reason.Value(f"REASON_{reason.name}") for reason in Reason}

# Sending


def outbound_from_proto(request: pb.OutboundMsg) -> Outbound:
    """Read the peer and the message, as bytes or as text.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE, with the invalid field.
    """
    return Outbound(_peer_id(request), _message(request))


def _peer_id(request: pb.OutboundMsg) -> NodeId:
    # Programs set bytes: WhichOneof would take as long as reading the field.
    match "peer_id" if request.peer_id else request.WhichOneof("peer"):
        case "peer_id":
            return wire.parse_node_id(request.peer_id)
        case "peer_id_hex":
            return wire.parse_node_id_hex(request.peer_id_hex)
    text = "The peer is missing. Set peer_id (bytes) or peer_id_hex (text)."
    raise RelayError(Reason.INVALID_NODE_ID, text, field="peer")


def _message(request: pb.OutboundMsg) -> Message:
    match "msg" if request.msg else request.WhichOneof("message"):
        case "msg":
            return wire.parse_message(request.msg)
        case "msg_hex":
            return wire.parse_message_hex(request.msg_hex)
        case "typed_msg":
            return wire.join_message(request.typed_msg.type, request.typed_msg.payload)
    text = "The message is missing. Set msg (bytes), msg_hex (text) or typed_msg."
    raise RelayError(Reason.INVALID_MESSAGE, text, field="message")


def failure_to_proto(number: int, error: RelayError) -> pb.SendResult:
    """Convert the error of one message of a stream."""
    return pb.SendResult(number=number, error=status_of(error), reason=_REASONS[error.reason])


def key_from_proto(key: str) -> str:
    """Check an idempotency key; empty: none.

    Raises:
        RelayError: INVALID_IDEMPOTENCY_KEY.
    """
    if key and not _KEY.fullmatch(key):
        raise RelayError(
            Reason.INVALID_IDEMPOTENCY_KEY,
            "The idempotency key is invalid. Use 1 to 100 printable ASCII characters without spaces, such as a UUID.",
            field="idempotency_key",
        )
    return key


# Receiving


def subscribe_from_proto(request: pb.SubscribeCustomMsgsRequest) -> SubscribeRequest:
    """Read the request of a subscriber.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_FILTER or INVALID_CONSUMER, with the invalid field.
    """
    start: Start | Position | None = None
    match request.WhichOneof("start"):
        case "after":
            start = Position(request.after)
        case "from_beginning" if request.from_beginning:
            start = Start.BEGINNING
    consumer = consumer_from_proto(request.consumer) if request.consumer else None
    return SubscribeRequest(filter_from_proto(request.filter), start, consumer)


def consumer_from_proto(name: str) -> str:
    """Check the name of a consumer. Raises RelayError: INVALID_CONSUMER."""
    if not _CONSUMER_NAME.fullmatch(name):
        raise RelayError(
            Reason.INVALID_CONSUMER,
            "The consumer's name is invalid. Use 1 to 100 letters, digits, dots, underscores or hyphens.",
            field="consumer",
        )
    return name


def filter_from_proto(request: pb.EventFilter) -> Filter:
    """Read a filter. Raises RelayError: INVALID_NODE_ID or INVALID_FILTER, with the invalid field."""
    for field in ("types", "type_ranges"):
        if len(getattr(request, field)) > MAX_FILTER:
            raise _too_wide("filter.", field)
    peers = peers_from_proto(request.peer_ids, request.peer_ids_hex, "filter.")
    types = TypeSet(
        (
            *(_range(one, one, "types") for one in request.types),
            *(_range(one.first, one.last, "type_ranges") for one in request.type_ranges),
        )
    )
    return Filter(
        peers or None,
        types if types.ranges else None,
        request.include_peer_events,
        request.include_outbox_events,
    )


def peers_from_proto(raw: Sequence[bytes], texts: Sequence[str], prefix: str = "") -> frozenset[bytes]:
    """Read the peers of a filter, given in two lists; `prefix` begins the names of their fields.

    Raises:
        RelayError: INVALID_NODE_ID or INVALID_FILTER, with the invalid field.
    """
    for field, given in (("peer_ids", raw), ("peer_ids_hex", texts)):
        if len(given) > MAX_FILTER:
            raise _too_wide(prefix, field)
    return frozenset(
        (
            *(wire.parse_node_id(one, f"{prefix}peer_ids") for one in raw),
            *(wire.parse_node_id_hex(one, f"{prefix}peer_ids_hex") for one in texts),
        )
    )


def _too_wide(prefix: str, field: str) -> RelayError:
    return RelayError(
        Reason.INVALID_FILTER,
        f"The filter has more than {MAX_FILTER:,} entries in {field}. Use ranges, or filter what you receive.",
        field=f"{prefix}{field}",
    )


def _range(first: int, last: int, field: str) -> range:
    if first > last or last > wire.MAX_TYPE:
        raise RelayError(
            Reason.INVALID_FILTER,
            f"{first} to {last} is an invalid range. Message types are 0 to {wire.MAX_TYPE:,}, the smaller one first.",
            field=f"filter.{field}",
        )
    return range(first, last + 1)


def events_to_response(events: Sequence[Event]) -> pb.SubscribeCustomMsgsResponse:
    """Convert events to a response without a position."""
    return pb.SubscribeCustomMsgsResponse(events=events_to_proto(events))


def events_to_proto(events: Sequence[Event]) -> list[pb.Event]:
    """Convert events."""
    return list(map(_event_to_proto, events))


def _event_to_proto(event: Event) -> pb.Event:
    arrival = event.arrival
    converted = pb.Event(
        position=event.position,
        time=timestamp(arrival.time_ns),
        node_id=arrival.node_id,
        peer_id=arrival.peer_id,
        peer_id_hex=arrival.peer_id.hex(),
    )
    match arrival.kind:
        case Kind.MESSAGE:
            converted.message.type = wire.message_type(arrival.message)
            converted.message.payload = arrival.message[2:]
        case Kind.CONNECTED:
            converted.peer_connected.SetInParent()
        case Kind.DISCONNECTED:
            converted.peer_disconnected.SetInParent()
        case Kind.INTERRUPTION:
            converted.interruption.lost = arrival.lost
            converted.interruption.SetInParent()
        case Kind.OUTBOX:
            converted.outbox_entry_ended.CopyFrom(outbox_convert.ended_to_proto(arrival))
    return converted


def consumer_to_proto(consumer: Consumer) -> pb.Consumer:
    """Convert a named consumer."""
    return pb.Consumer(
        name=consumer.name,
        position=consumer.position,
        lag=consumer.lag,
        updated=timestamp(consumer.updated_ns),
        expired=consumer.is_expired,
    )


def inbox_to_proto(state: State) -> pb.GetInboxResponse:
    """Convert the state of the inbox."""
    converted = pb.GetInboxResponse(attached=state.attached, error=state.error or "")
    if (bounds := state.bounds) is not None:
        converted.earliest = bounds.earliest
        converted.latest = bounds.latest
        converted.count = bounds.count
        converted.size = bounds.size
        if bounds.oldest_ns:
            converted.oldest.CopyFrom(timestamp(bounds.oldest_ns))
    return converted


def timestamp(time_ns: int) -> Timestamp:
    """Convert a time in nanoseconds since 1970."""
    return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)


# The node


def peer_to_proto(peer: Peer) -> pb.Peer:
    """Convert a peer."""
    return pb.Peer(
        peer_id=peer.peer_id,
        peer_id_hex=peer.peer_id.hex(),
        connected=peer.connected,
        address=peer.address,
        num_channels=peer.num_channels,
    )


def node_to_proto(info: NodeInfo) -> pb.Node:
    """Convert a node's description of itself."""
    return pb.Node(
        node_id=info.node_id,
        node_id_hex=info.node_id.hex(),
        alias=info.alias,
        network=info.network,
        version=info.version,
    )
