"""Conversions of the receiving half of the contract."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.core.mailbox import ConsumerState, State, Wish
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, Kind
from custommsg_server.inbox.position import Start
from custommsg_server.inbox.sqlite.feed import Batch

_CONSUMER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


def wish_from_proto(request: pb.SubscribeCustomMsgsRequest) -> Wish:
    """Read what a subscriber asks for.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_FILTER or INVALID_CONSUMER, with the field at fault.
    """
    kinds = set(Kind) if request.include_peer_events else {Kind.MESSAGE}
    return Wish(
        Filter(
            node_ids=_node_ids(request),
            types=(
                *(_range(one, one) for one in request.types),
                *(_range(one.first, one.last) for one in request.type_ranges),
            ),
            kinds=frozenset(kinds),
        ),
        _start(request),
        consumer_from_proto(request.consumer) if request.consumer else None,
        request.inbox_id,
    )


def consumer_from_proto(name: str) -> str:
    """Check the name of a consumer.

    Raises:
        RelayError: INVALID_CONSUMER.
    """
    if not _CONSUMER_NAME.fullmatch(name):
        raise RelayError(
            Reason.INVALID_CONSUMER,
            "This is no name of a consumer. Use 1 to 100 letters, digits, dots, underscores or hyphens.",
            field="consumer",
        )
    return name


def _node_ids(request: pb.SubscribeCustomMsgsRequest) -> frozenset[bytes]:
    try:
        raw = [wire.parse_node_id(one) for one in request.node_ids]
    except RelayError as error:
        error.field = "node_ids"
        raise
    try:
        return frozenset((*raw, *map(wire.parse_node_id_hex, request.node_ids_hex)))
    except RelayError as error:
        error.field = "node_ids_hex"
        raise


def _range(first: int, last: int) -> range:
    if first > last or last > wire.MAX_TYPE:
        raise RelayError(
            Reason.INVALID_FILTER,
            f"{first} to {last} is no range of types. Types are 0 to {wire.MAX_TYPE:,}, the first one first.",
            field="type_ranges" if first != last else "types",
        )
    return range(first, last + 1)


def _start(request: pb.SubscribeCustomMsgsRequest) -> Start | int:
    match request.WhichOneof("start"):
        case "after":
            return request.after
        case "from_beginning" if request.from_beginning:
            return Start.BEGINNING
        case _:
            return Start.LIVE


def batch_to_proto(batch: Batch) -> pb.SubscribeCustomMsgsResponse:
    """Convert a batch of events, or a heartbeat."""
    return pb.SubscribeCustomMsgsResponse(events=map(_event_to_proto, batch.events), position=batch.position)


def _event_to_proto(event: Event) -> pb.Event:
    arrival = event.arrival
    converted = pb.Event(
        sequence=event.sequence,
        time=_timestamp(arrival.time_ns),
        node_id=arrival.node_id,
        node_id_hex=arrival.node_id.hex(),
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
    return converted


def consumer_to_proto(state: ConsumerState) -> pb.Consumer:
    """Convert a consumer's state."""
    return pb.Consumer(
        name=state.consumer.name,
        position=state.consumer.position,
        lag=state.lag,
        updated=_timestamp(state.consumer.updated_ns),
        expired=state.expired,
    )


def inbox_to_proto(state: State) -> pb.GetInboxResponse:
    """Convert the state of the inbox."""
    converted = pb.GetInboxResponse(attached=state.attached, error=state.error or "")
    if state.held is not None:
        converted.inbox_id = state.inbox_id
        converted.earliest = state.held.earliest
        converted.latest = state.held.latest
        converted.count = state.held.count
        converted.size = state.held.size
        if state.held.oldest_ns:
            converted.oldest.CopyFrom(_timestamp(state.held.oldest_ns))
    return converted


def _timestamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)
