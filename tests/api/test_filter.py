"""A filter that is too large is refused at once; any other takes the same time for each event."""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api import convert, service
from custommsg_server.api.convert import MAX_FILTER, filter_from_proto
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from support import nodes
from support.every_rpc import until_serving
from support.gateways import gateway

FIELDS = ("peer_ids", "peer_ids_hex", "types", "type_ranges")
HUGE = 1_400_000


class Unread(list[Any]):
    """A list that must not be read."""

    def __len__(self) -> int:
        return HUGE

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it was read")


@pytest.mark.parametrize("field", FIELDS)
def test_a_filter_of_a_million_entries_is_refused_unread(field: str) -> None:
    """Only its length is checked."""
    request = SimpleNamespace(include_peer_events=False)
    for one in FIELDS:
        setattr(request, one, Unread() if one == field else [])
    with pytest.raises(RelayError) as caught:
        filter_from_proto(cast("pb.EventFilter", request))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FILTER, f"filter.{field}")


async def test_the_rune_is_judged_before_the_filter_is_read(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a valid rune, the filter is not parsed; with one, the caller learns that it is too large."""
    read: list[int] = []

    def counting(request: pb.EventFilter) -> Any:
        read.append(len(request.types))
        return filter_from_proto(request)

    monkeypatch.setattr(convert, "filter_from_proto", counting)
    huge = pb.EventFilter(types=[number % 16_000 for number in range(HUGE)])
    assert service.convert is convert
    async with (
        nodes.embedded(short_path) as node,
        gateway(node.rpc_file, insecure=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await until_serving(channel)
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        rune = str((await node.call("createrune", restrictions=[]))["rune"])
        for shown, code in (
            ("AAAA" + rune[4:], grpc.StatusCode.UNAUTHENTICATED),
            (rune, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            for call in (
                stub.SubscribeCustomMsgs(
                    pb.SubscribeCustomMsgsRequest(filter=huge), metadata=(("rune", shown),)
                ).read(),
                stub.ListEvents(pb.ListEventsRequest(filter=huge), metadata=(("rune", shown),)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is code
            assert read == ([] if code is grpc.StatusCode.UNAUTHENTICATED else [HUGE, HUGE])


def test_an_event_costs_the_same_whatever_the_filter_holds() -> None:
    """One type or a thousand ranges, one peer or a thousand."""
    ranges = [pb.TypeRange(first=number * 60, last=number * 60 + 1) for number in range(MAX_FILTER)]
    large = filter_from_proto(pb.EventFilter(types=range(0, 50_000, 50), type_ranges=ranges))
    small = filter_from_proto(pb.EventFilter(types=[40_001]))
    arrivals = [Arrival(Kind.MESSAGE, 1, b"\x02" * 33, bytes([high, 7])) for high in range(256)]

    def cost(wanted: Any) -> float:
        return min(timeit.repeat(lambda: [wanted.passes(one) for one in arrivals], number=20, repeat=9))

    assert cost(large) < 5 * cost(small)  # a look at each entry would be a thousand times as much
