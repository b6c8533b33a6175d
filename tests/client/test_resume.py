"""A subscription over connections that break: every message once, in order, none missed."""

from __future__ import annotations

import asyncio
import logging
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
from support.feed import CUTS, INBOX_ID, Code, Feed, Step, end, interruption, message, stopping, vanish

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
    """Batches, heartbeats, cuts of every kind, and what a gateway sends again after the last ack."""
    async with run() as gateway:
        gateway.stream = feed = Feed(events, [0, *(plans[0] if plans else [vanish])], *plans[1:])
        gateway.ack = feed.ack
        client = Either(kind, gateway.address)
        listening = client.subscribe(types=[37913], consumer=consumer)
        expected = [event.sequence for event in events if event.message.type == 37913]
        got = []
        for count in range(len(expected)):
            got.append((await listening.next()).sequence)
            if consumer and count % ack_every == 0:
                await listening("ack")
        await client("close")
    assert got == expected


@given(
    batches=st.lists(
        st.tuples(st.lists(st.integers(1, 30), max_size=5).map(sorted), st.integers(0, 30)), max_size=10
    )
)
def test_a_cursor_never_goes_back(batches: list[tuple[list[int], int]]) -> None:
    """Whatever is sent again, what is yielded has growing numbers, and so has the position."""
    cursor = Cursor(pb.SubscribeCustomMsgsRequest(), interruptions=False)
    assert cursor.registered((("custommsg-position", "0"),))
    yielded, positions = [], []
    for sequences, position in batches:
        cursor.take(pb.SubscribeCustomMsgsResponse(events=map(message, sequences), position=position))
        while (event := cursor.next()) is not None:
            yielded.append(event.sequence)
            positions.append(cursor.position or 0)
        positions.append(cursor.position or 0)
    assert yielded == sorted(set(yielded))
    assert positions == sorted(positions)


async def test_a_live_subscription_cut_before_its_first_message_misses_none(
    client: Any, gateway: ScriptedGateway
) -> None:
    """It goes on where it was registered, not live again, and in the same inbox."""
    cut_now = asyncio.Event()

    async def cut(request: Any, context: Any) -> None:
        await cut_now.wait()
        await vanish(request, context)

    gateway.stream = feed = Feed([], [0, cut], starts_at=7)
    listening = client.subscribe()
    await listening("start")
    feed.events.append(message(8))
    cut_now.set()
    assert (await listening.next()).sequence == 8
    assert feed.requests[1:] == [pb.SubscribeCustomMsgsRequest(after=7, inbox_id=INBOX_ID)]


async def test_what_heartbeats_said_is_not_asked_for_again(client: Any, gateway: ScriptedGateway) -> None:
    """A narrow filter resumes after the last heartbeat, not after its last message."""
    others = [message(n, type=1) for n in range(2, 6)]
    gateway.stream = feed = Feed([message(1), *others, message(6)], [1, 2, 2, vanish])
    assert [event.sequence for event in await client.subscribe(types=[37913]).take(2)] == [1, 6]
    assert feed.requests[1].after == 5


async def test_a_gateway_that_is_restarted_is_found_again(connect: Any) -> None:
    """The same address, another process: the subscription goes on."""
    async with run() as gateway:
        gateway.stream = Feed([message(1)], [1])
        listening = connect(gateway.address).subscribe()
        assert (await listening.next()).sequence == 1
        waiting = asyncio.create_task(listening.next())
    async with run(gateway.address) as gateway:
        gateway.stream = feed = Feed([message(1), message(2)])
        assert (await waiting).sequence == 2
    assert feed.requests[0].after == 1


async def test_a_connection_that_went_dead_is_noticed(
    connect: Any, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte comes and no end either, as behind a router that forgot the connection: it asks, and goes on."""
    times = [name for name, _ in _core.CHANNEL_OPTIONS if "keepalive_time" in name or "ping_timeout" in name]
    options = dict(_core.CHANNEL_OPTIONS) | dict.fromkeys(times, 200)
    monkeypatch.setattr(_core, "CHANNEL_OPTIONS", tuple(options.items()))
    gateway.stream = feed = Feed([message(1), message(2)], [1])
    async with wire_cutter.run(gateway.address) as proxy:
        listening = connect(proxy.address).subscribe()
        assert (await listening.next()).sequence == 1
        proxy.cut()
        assert (await listening.next()).sequence == 2
        await listening("close")
    assert [request.after for request in feed.requests] == [0, 1]


async def test_an_outage_is_one_warning_and_its_end_is_told(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """However many tries it takes."""
    caplog.set_level(logging.INFO, "custommsg")
    gateway.stream = Feed([message(1), message(2)], [1, stopping], [end], [stopping])
    await client.subscribe().take(2)
    levels = [record.levelno for record in caplog.records if record.name == "custommsg"]
    texts = [record.getMessage() for record in caplog.records if record.name == "custommsg"]
    assert levels == [logging.WARNING] + [logging.INFO] * (len(levels) - 1)
    assert texts[0].startswith("Cut off after event 1 (GATEWAY_STOPPING: No.); trying again in ")
    assert texts[-1] == "Connected again; going on after event 1."


async def test_retries_can_be_turned_off(connect: Any, gateway: ScriptedGateway) -> None:
    """Who has a policy of their own gets the first failure, and the position to go on from."""
    gateway.stream = feed = Feed([message(1)], [1, stopping])
    listening = connect(gateway.address, retry=False).subscribe()
    await listening.next()
    with pytest.raises(custommsg.NotSent):
        await listening.next()
    assert (listening.subscription.position, len(feed.requests)) == (1, 1)


async def test_a_consumer_acknowledges_what_it_is_told_to(client: Any, gateway: ScriptedGateway) -> None:
    """One event, or all that were yielded; a new subscription of the name goes on there."""
    gateway.stream = feed = Feed([message(1), message(2), message(3)])
    gateway.ack = feed.ack
    listening = client.subscribe(consumer="c", from_beginning=True)
    first, _ = await listening.take(2)
    assert await listening("ack", first) == 1
    again = client.subscribe(consumer="c", from_beginning=True)
    assert (await again.next()).sequence == 2
    assert await listening("ack") == 2
    assert feed.acked == {"c": 2}


async def test_a_consumer_moves_on_over_what_its_filter_leaves_out(
    client: Any, gateway: ScriptedGateway
) -> None:
    """Else its position would expire though it missed nothing; but not past what waits for its ack."""
    others = [message(n, type=1) for n in range(1, 5)]
    gateway.stream = feed = Feed([*others, message(5), message(6, type=1), message(7)], [4, 1, 1, vanish])
    gateway.ack = feed.ack
    listening = client.subscribe(types=[37913], consumer="c", from_beginning=True)
    await listening.next()
    assert feed.acked == {"c": 4}
    await listening.next()
    assert feed.acked == {"c": 4}


async def test_a_position_that_could_not_be_stored_costs_nothing(
    client: Any, gateway: ScriptedGateway
) -> None:
    """The acks that nobody asked for may fail; those that were asked for say so."""
    gateway.stream = Feed([message(1)])
    gateway.ack = refuse_because(Code.UNAVAILABLE, "INBOX_UNAVAILABLE")
    listening = client.subscribe(consumer="c", from_beginning=True)
    assert (await listening.next()).sequence == 1
    with pytest.raises(custommsg.NotSent):
        await listening("ack")


async def test_only_a_consumer_that_has_begun_can_acknowledge(client: Any, gateway: ScriptedGateway) -> None:
    """Else there is nothing to store, or no name to store it under."""
    gateway.stream = Feed([interruption(1), message(2)])
    for arguments in ({}, {"consumer": "c"}):
        with pytest.raises(ValueError, match="nothing to acknowledge"):
            await client.subscribe(**arguments)("ack")
