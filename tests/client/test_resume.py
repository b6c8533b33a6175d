"""A subscription over connections that break: every message once, in order, none missed."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import custommsg
from custommsg import _core
from custommsg._cursor import Cursor
from custommsg.v1 import custommsg_pb2 as pb
from support import wire_cutter
from support.client_gateway import ScriptedGateway, refuse_because, run
from support.either import Either
from support.feed import (
    CUTS,
    Code,
    Feed,
    Step,
    interruption,
    message,
    number_of,
    position,
    stopping,
    vanish,
)

steps = st.lists(st.integers(0, 4), max_size=4)
plans = st.lists(st.tuples(steps, st.sampled_from(CUTS)).map(lambda plan: [*plan[0], plan[1]]), max_size=6)
# Events that the filter below lets pass, and others.
inboxes = st.lists(st.booleans(), min_size=1, max_size=20).map(
    lambda kinds: [message(n, type=37913 if kind else 1) for n, kind in enumerate(kinds, 1)] + [message(99)]
)


@pytest.mark.parametrize("kind", ["aio", "sync"])
@pytest.mark.parametrize("consumer", [None, "consumer"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=inboxes, plans=plans, ack_every=st.integers(1, 5))
async def test_however_connections_break_each_message_comes_once_and_in_order(
    kind: str, consumer: str | None, events: list[pb.Event], plans: list[list[Step]], ack_every: int
) -> None:
    """Batches, heartbeats, cuts of every kind, and a consumer that acknowledges less than it was sent."""
    async with run() as gateway:
        gateway.stream = feed = Feed(events, [0, *(plans[0] if plans else [vanish])], *plans[1:])
        gateway.ack = feed.ack
        client = Either(kind, gateway.address)
        listening = client.subscribe(types=[37913], consumer=consumer)
        expected = [event.position for event in events if event.message.type == 37913]
        got = []
        for count in range(len(expected)):
            got.append((await listening.next()).position)
            if consumer and count % ack_every == 0:
                await listening("ack")
        await client("close")
    assert got == expected
    assert all(request.HasField("after") for request in feed.requests[1:])


# A connection: how many events each response has (0: a heartbeat), and how many the reader takes then.
connections = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=5), min_size=1, max_size=8
)


@given(events=inboxes, connections=connections)
def test_a_cursor_yields_each_event_once_wherever_it_is_cut(
    events: list[pb.Event], connections: list[list[tuple[int, int]]]
) -> None:
    """Also in the middle of a batch, of which the next connection sends the rest again."""
    cursor = Cursor(pb.SubscribeCustomMsgsRequest(from_beginning=True), interruptions=False)
    passing = [event for event in events if event.message.type == 37913]
    yielded: list[str] = []
    for connection in [*connections, [(len(events), len(events) + 1)]]:
        cursor.request()
        assert cursor.next() is None, "a connection that fails before its first response yields nothing"
        request = cursor.request()
        sent = number_of(request.after) if request.HasField("after") else 0
        cursor.registered(pb.SubscribeCustomMsgsResponse(position=position(sent)))
        for size, taken in connection:
            batch = [event for event in events if number_of(event.position) > sent][:size]
            sent = number_of(batch[-1].position) if batch else sent
            wanted = [event for event in batch if event in passing]
            cursor.take(pb.SubscribeCustomMsgsResponse(events=wanted, position=position(sent)))
            for _ in range(taken):
                event = cursor.next()
                if event is not None:
                    yielded.append(event.position)
    assert yielded == [event.position for event in passing]


async def test_a_live_subscription_cut_before_its_first_message_misses_none(
    client: Any, gateway: ScriptedGateway
) -> None:
    """It goes on where it was registered, and not with what is new then."""
    cut_now = asyncio.Event()

    async def cut(request: Any, context: Any) -> None:
        await cut_now.wait()
        await vanish(request, context)

    gateway.stream = feed = Feed([], [0, cut], starts_at=7)
    listening = client.subscribe()
    await listening("start")
    feed.events.append(message(8))
    cut_now.set()
    assert (await listening.next()).position == position(8)
    assert feed.requests[1:] == [pb.SubscribeCustomMsgsRequest(after=position(7))]


async def test_a_reconnect_starts_after_the_last_heartbeat(client: Any, gateway: ScriptedGateway) -> None:
    """Not after the last message, which a narrow filter may have let pass long ago."""
    others = [message(n, type=1) for n in range(2, 6)]
    gateway.stream = feed = Feed([message(1), *others, message(6)], [1, 2, 2, vanish])
    got = await client.subscribe(types=[37913]).take(2)
    assert [event.position for event in got] == [position(1), position(6)]
    assert feed.requests[1].after == position(5)


async def test_a_gateway_that_is_restarted_is_found_again(connect: Any) -> None:
    """The same address, another process: the subscription goes on."""
    async with run() as gateway:
        gateway.stream = Feed([message(1)], [1])
        listening = connect(gateway.address).subscribe()
        assert (await listening.next()).position == position(1)
        waiting = asyncio.create_task(listening.next())
    async with run(gateway.address) as gateway:
        gateway.stream = feed = Feed([message(1), message(2)])
        assert (await waiting).position == position(2)
    assert feed.requests[0].after == position(1)


async def test_a_connection_that_went_dead_is_noticed(
    connect: Any, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither data nor an end comes, as behind a router that forgot the connection: it pings, and connects again."""
    times = [name for name, _ in _core.CHANNEL_OPTIONS if "keepalive_time" in name or "ping_timeout" in name]
    options = dict(_core.CHANNEL_OPTIONS) | dict.fromkeys(times, 200)
    monkeypatch.setattr(_core, "CHANNEL_OPTIONS", tuple(options.items()))
    gateway.stream = feed = Feed([message(1), message(2)], [1])
    async with wire_cutter.run(gateway.address) as proxy:
        listening = connect(proxy.address).subscribe()
        assert (await listening.next()).position == position(1)
        proxy.cut()
        assert (await listening.next()).position == position(2)
        await listening("close")
    assert [request.after for request in feed.requests] == ["", position(1)]


async def test_an_outage_is_one_warning_and_its_end_is_logged(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """However many attempts it takes."""
    caplog.set_level(logging.INFO, "custommsg")
    gateway.stream = Feed([message(1), message(2)], [1, stopping], [stopping], [vanish])
    await client.subscribe().take(2)
    lost, back = [record for record in caplog.records if record.name == "custommsg"]
    assert (lost.levelno, back.levelno) == (logging.WARNING, logging.INFO)
    assert re.fullmatch(r"No\. Connecting again in 0\.\d+ s\.", lost.getMessage())
    assert back.getMessage() == "Connected again."


async def test_the_log_has_none_of_grpcs_own_words(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Addresses and sockets are details for the debug log."""
    gateway.stream = Feed([message(1), message(2)], [1, vanish])
    await client.subscribe().take(2)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert re.fullmatch(r"The connection to the gateway was lost\. Connecting again in 0\.\d+ s\.", warning)


async def test_retries_can_be_turned_off(connect: Any, gateway: ScriptedGateway) -> None:
    """A program with its own retry policy gets the first failure, and the position to resume after."""
    gateway.stream = feed = Feed([message(1)], [1, stopping])
    listening = connect(gateway.address, retry=False).subscribe()
    await listening.next()
    with pytest.raises(custommsg.NotSent):
        await listening.next()
    assert (listening.subscription.position, len(feed.requests)) == (position(1), 1)


async def test_a_consumer_acknowledges_one_event_or_all(client: Any, gateway: ScriptedGateway) -> None:
    """A new subscription of the name resumes there."""
    gateway.stream = feed = Feed([message(1), message(2), message(3)])
    gateway.ack = feed.ack
    listening = client.subscribe(consumer="c", from_beginning=True)
    first, _ = await listening.take(2)
    assert await listening("ack", first) == position(1)
    again = client.subscribe(consumer="c", from_beginning=True)
    assert (await again.next()).position == position(2)
    assert await listening("ack") == position(2)
    assert feed.consumers == {"c": 2}


async def test_a_consumer_moves_on_over_what_its_filter_leaves_out(
    client: Any, gateway: ScriptedGateway
) -> None:
    """Otherwise its position would expire although it missed nothing. An event that waits for its ack is not passed."""
    others = [message(n, type=1) for n in range(1, 5)]
    gateway.stream = feed = Feed([*others, message(5), message(6, type=1), message(7)], [4, 1, 1, vanish])
    gateway.ack = feed.ack
    listening = client.subscribe(types=[37913], consumer="c", from_beginning=True)
    await listening.next()
    assert feed.acks == [4]
    await listening.next()
    assert feed.acks == [4]


async def test_a_consumer_goes_on_by_itself_only_after_its_last_event_was_acknowledged(
    client: Any, gateway: ScriptedGateway
) -> None:
    """An ack of an earlier event leaves a later one unacknowledged; that of the last one leaves none."""
    others = [message(n, type=1) for n in range(3, 6)]
    events = [message(1), message(2), *others, message(6), message(7, type=1), message(8)]
    gateway.stream = feed = Feed(events, [2, 3, 1, 1, 1])
    gateway.ack = feed.ack
    listening = client.subscribe(types=[37913], consumer="c", from_beginning=True)
    first, second = await listening.take(2)
    await listening("ack", first)
    third = await listening.next()
    assert feed.acks == [1], "the second event waits for its ack"
    await listening("ack", second)
    await listening("ack", third)
    await listening.next()
    assert feed.acks == [1, 2, 6, 7], "over the event that did not pass the filter"


async def test_a_consumer_is_not_acknowledged_where_it_starts(client: Any, gateway: ScriptedGateway) -> None:
    """The gateway knows that position already, and heartbeats without news do not change it."""
    gateway.stream = feed = Feed([message(9)], [0, 0, 0, 1], starts_at=8)
    gateway.ack = feed.ack
    await client.subscribe(consumer="c").next()
    assert feed.acks == []


async def test_a_consumer_can_start_elsewhere(client: Any, gateway: ScriptedGateway) -> None:
    """A position that is given counts more than the stored one, which stays where it is."""
    gateway.stream = feed = Feed([message(1), message(2), message(3)])
    gateway.ack = feed.ack
    feed.consumers["c"] = 2
    assert (await client.subscribe(consumer="c").next()).position == position(3)
    assert (await client.subscribe(consumer="c", after=position(0)).next()).position == position(1)
    assert feed.consumers == {"c": 2}


async def test_a_position_that_could_not_be_stored_costs_nothing(
    client: Any, gateway: ScriptedGateway
) -> None:
    """An ack that the caller did not ask for may fail; one that the caller asked for raises the failure."""
    gateway.stream = Feed([message(1)])
    gateway.ack = refuse_because(Code.UNAVAILABLE, "INBOX_UNAVAILABLE")
    listening = client.subscribe(consumer="c", from_beginning=True)
    assert (await listening.next()).position == position(1)
    with pytest.raises(custommsg.NotSent):
        await listening("ack")


async def test_only_a_consumer_that_has_begun_can_acknowledge(client: Any, gateway: ScriptedGateway) -> None:
    """Otherwise there is nothing to store, or no name to store it under."""
    gateway.stream = Feed([interruption(1), message(2)])
    for arguments in ({}, {"consumer": "c"}):
        with pytest.raises(ValueError, match="nothing to acknowledge"):
            await client.subscribe(**arguments)("ack")
