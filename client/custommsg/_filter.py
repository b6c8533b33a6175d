"""Builds the request of a subscription: what to receive, and from where on."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Final

from custommsg import _core
from custommsg.errors import InvalidRequest, Reason
from custommsg.v1 import custommsg_pb2 as pb

MAX_SEQUENCE: Final = 2**64 - 1


def subscribe_request(
    *,
    types: Iterable[int | range] | None,
    peers: Iterable[bytes | str] | None,
    after: int | None,
    from_beginning: bool,
    consumer: str | None,
    inbox_id: str | None,
    peer_events: bool,
) -> pb.SubscribeCustomMsgsRequest:
    """Build the request of `subscribe`.

    An empty filter is refused, though to the gateway it means "all": it is what is left of a list that was
    computed, and its author meant "none".

    Raises:
        InvalidRequest: INVALID_FILTER or INVALID_NODE_ID.
        TypeError: both `after` and `from_beginning`; or peers that are no list of peers.
        ValueError: `after` is no sequence number.
    """
    if after is not None and from_beginning:
        raise TypeError("start either after= a sequence number or from_beginning=, not both")
    request = pb.SubscribeCustomMsgsRequest(
        include_peer_events=peer_events, consumer=consumer or "", inbox_id=inbox_id or ""
    )
    if after is not None:
        request.after = sequence_number(after)
    elif from_beginning:
        request.from_beginning = True
    if types is not None:
        _add_types(request, types)
    if peers is not None:
        if isinstance(peers, str | bytes | bytearray | memoryview):
            raise TypeError("peers= takes a list of node ids; for one peer give a list of one")
        request.node_ids.extend(_core.node_id(peer) for peer in peers)
        if not request.node_ids:
            raise _invalid_filter("node_ids", "The list of peers is empty: give None for all.")
    return request


def sequence_number(value: int) -> int:
    """Check a sequence number, 0 to 2**64 - 1.

    Raises:
        ValueError: it is none.
    """
    number = operator.index(value)
    if not 0 <= number <= MAX_SEQUENCE:
        raise ValueError(f"{number} is no sequence number: it is from 0 to 2**64 - 1")
    return number


def _add_types(request: pb.SubscribeCustomMsgsRequest, types: Iterable[int | range]) -> None:
    for item in types:
        if isinstance(item, range):
            if len(item) == 0 or item.step != 1:
                raise _invalid_filter(
                    "type_ranges", f"{item} is no range of types: it is empty or has a step."
                )
            request.type_ranges.add(first=_type(item[0]), last=_type(item[-1]))
        else:
            request.types.append(_type(item))
    if not request.types and not request.type_ranges:
        raise _invalid_filter("types", "The list of types is empty: give None for all.")


def _type(value: int) -> int:
    number = operator.index(value)
    if not 0 <= number <= _core.MAX_TYPE:
        raise _invalid_filter("types", f"{number} is no message type: it is from 0 to {_core.MAX_TYPE:,}.")
    return number


def _invalid_filter(field: str, message: str) -> InvalidRequest:
    return _core.invalid(Reason.INVALID_FILTER, field, message)
