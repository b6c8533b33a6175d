"""Builds what a subscription or a listing asks for: which events, and where to start."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from custommsg import _core
from custommsg.errors import InvalidRequest, Reason
from custommsg.model import MAX_TYPE
from custommsg.v1 import custommsg_pb2 as pb


def subscribe_request(
    *,
    types: Iterable[int | range] | None,
    peers: Iterable[bytes | str] | None,
    after: str | None,
    from_beginning: bool,
    consumer: str | None,
    peer_events: bool,
    outbox_events: bool,
    node_id: bytes | str | None,
) -> pb.SubscribeCustomMsgsRequest:
    """Build the request of `subscribe`.

    Raises:
        InvalidRequest, TypeError: as `event_filter`; INVALID_POSITION, INVALID_CONSUMER or INVALID_NODE_ID.
        TypeError: both `after` and `from_beginning` are given, or `after` is not text.
    """
    if after is not None and from_beginning:
        raise TypeError("give either after= or from_beginning=, not both")
    request = pb.SubscribeCustomMsgsRequest(
        filter=event_filter(types=types, peers=peers, peer_events=peer_events, outbox_events=outbox_events),
        node_id=_core.node_id(node_id),
    )
    if after is not None:
        request.after = _core.position(after, "after")
    elif from_beginning:
        request.from_beginning = True
    if consumer is not None:
        request.consumer = _core.consumer_name(consumer)
    return request


def list_request(
    *,
    types: Iterable[int | range] | None,
    peers: Iterable[bytes | str] | None,
    after: str | None,
    page_size: int | None,
    peer_events: bool,
    outbox_events: bool,
    node_id: bytes | str | None,
) -> pb.ListEventsRequest:
    """Build the request for the first page of `list_events`.

    Raises:
        InvalidRequest, TypeError: as `event_filter`; INVALID_POSITION, INVALID_PAGE or INVALID_NODE_ID.
    """
    if page_size is not None and not 0 < operator.index(page_size) < 2**31:
        raise _core.invalid(
            Reason.INVALID_PAGE, "page_size", f"The page size is {page_size}: give 1 or more."
        )
    return pb.ListEventsRequest(
        filter=event_filter(types=types, peers=peers, peer_events=peer_events, outbox_events=outbox_events),
        after="" if after is None else _core.position(after, "after"),
        page_size=page_size or 0,
        node_id=_core.node_id(node_id),
    )


def event_filter(
    *,
    types: Iterable[int | range] | None,
    peers: Iterable[bytes | str] | None,
    peer_events: bool,
    outbox_events: bool = False,
) -> pb.EventFilter | None:
    """Build a filter; None if it lets all messages pass and nothing else, as the gateway's default does.

    An empty list is refused, although to the gateway it means "all": the caller computed it, and expects to get
    nothing.

    Raises:
        InvalidRequest: INVALID_FILTER or INVALID_NODE_ID.
        TypeError: `types` or `peers` is not a list.
    """
    if types is None and peers is None and not peer_events and not outbox_events:
        return None
    wanted = pb.EventFilter(include_peer_events=peer_events, include_outbox_events=outbox_events)
    if types is not None:
        _add_types(wanted, types)
    if peers is not None:
        if isinstance(peers, str | bytes | bytearray | memoryview):
            raise TypeError("peers= takes a list of node ids; for one peer give a list of one")
        wanted.peer_ids.extend(_core.peer_id(peer, "peer_ids") for peer in peers)
        if not wanted.peer_ids:
            raise _invalid("peer_ids", "The list of peers is empty: give None for all peers.")
    return wanted


def _add_types(wanted: pb.EventFilter, types: Iterable[int | range]) -> None:
    for item in types:
        if isinstance(item, range):
            if len(item) == 0 or item.step != 1:
                problem = "is empty" if len(item) == 0 else "has a step"
                raise _invalid("type_ranges", f"The type range {item} {problem}.")
            wanted.type_ranges.add(first=_type(item[0]), last=_type(item[-1]))
        else:
            wanted.types.append(_type(item))
    if not wanted.types and not wanted.type_ranges:
        raise _invalid("types", "The list of types is empty: give None for all types.")


def _type(value: int) -> int:
    number = operator.index(value)
    if not 0 <= number <= MAX_TYPE:
        raise _invalid("types", f"{number} is not a message type: a type is a number from 0 to {MAX_TYPE:,}.")
    return number


def _invalid(field: str, message: str) -> InvalidRequest:
    return _core.invalid(Reason.INVALID_FILTER, field, message)
