"""The promises of the port, for every engine. Positions are opaque here."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Batch,
    Event,
    Inbox,
    InboxError,
    Position,
    PositionError,
    PositionExpired,
    PositionInvalid,
    PositionNotReached,
    PositionOfOtherInbox,
    Start,
    Subscription,
)
from support.engines import Engine
from support.inboxes import ALICE, BOB, EVERYTHING, OURS, arrival, collect, nameless, numbers, some

SOON = 0.01


async def read_all(inbox: Inbox, wanted: Filter = EVERYTHING, limit: int = 50) -> list[Event]:
    """Read the whole inbox, page by page."""
    events: list[Event] = []
    batch = await inbox.read(wanted, None, limit)
    while True:
        assert len(batch.events) <= limit
        events += batch.events
        if batch.is_last:
            return events
        batch = await inbox.read(wanted, batch.position, limit)


async def positions_of(inbox: Inbox, count: int) -> list[Position]:
    """Append numbered messages, from 1; return their positions, after the position before them."""
    before = (await inbox.bounds()).latest
    return [before, *await inbox.append(some(1, count))]


# Appending


async def test_what_is_appended_is_kept_as_it_was(engine: Engine) -> None:
    """Every field of every kind of event, at the position that append returned; the id need not be stored."""
    inbox = await engine.open()
    arrivals = [
        Arrival(Kind.MESSAGE, 2**62, ALICE, b"\x00\x00'\xff\x00" + bytes(range(256)), 0, OURS, "a"),
        Arrival(Kind.MESSAGE, 1, BOB, b"\x94\x19" + bytes(65_533), 0, b"", "b"),
        Arrival(Kind.CONNECTED, 2, ALICE, node_id=OURS),
        Arrival(Kind.DISCONNECTED, 3, ALICE, node_id=BOB),
        Arrival(Kind.INTERRUPTION, 4, lost=7),
        Arrival(Kind.INTERRUPTION, 4, BOB, lost=2**40, node_id=OURS),
    ]
    live = await inbox.subscribe(EVERYTHING, Start.LIVE)
    positions = await inbox.append(arrivals)
    assert len(set(positions)) == len(arrivals)
    assert all(0 < len(position) <= 100 and " " not in position for position in positions)
    for events in (await read_all(inbox), await collect(live, 6)):
        assert [event.position for event in events] == positions
        assert [nameless(event.arrival) for event in events] == [nameless(one) for one in arrivals]


async def test_the_order_is_that_of_the_calls(engine: Engine) -> None:
    """With any number of concurrent appends, whichever of them are awaited."""
    inbox = await engine.open()
    waiting = [inbox.append(some(10 * n, 10 * n + 9)) for n in range(100)]
    positions = await asyncio.gather(*reversed(waiting))
    events = await read_all(inbox)
    assert numbers(events) == list(range(1000))
    assert [event.position for event in events] == [one for some in reversed(positions) for one in some]


async def test_nothing_to_append_is_no_work(engine: Engine) -> None:
    """An empty list has no positions."""
    inbox = await engine.open()
    assert list(await inbox.append([])) == []
    assert await read_all(inbox) == []


async def test_who_stops_waiting_takes_nothing_back(engine: Engine) -> None:
    """Arrivals are stored, even if the append is cancelled."""
    inbox = await engine.open()
    abandoned = asyncio.ensure_future(inbox.append([arrival(1)]))
    abandoned.cancel()
    await inbox.append([arrival(2)])
    assert numbers(await read_all(inbox)) == [1, 2]


async def test_an_id_is_stored_once(engine: Engine) -> None:
    """In one call, in two concurrent calls, and later; the position is the same each time."""
    inbox = await engine.open()
    first = inbox.append([arrival(1, name="a"), arrival(2, name="b"), arrival(1, name="a"), arrival(3)])
    second = inbox.append([arrival(3), arrival(2, name="b"), arrival(4, name="c"), arrival(5)])
    a, b, again, three = await first
    other_three, b_again, c, five = await second
    assert (again, b_again) == (a, b)
    assert list(await inbox.append([arrival(2, name="b"), arrival(1, name="a")])) == [b, a]
    assert list(await inbox.append([arrival(4, name="c")])) == [c]
    events = await read_all(inbox)
    assert [event.position for event in events] == [a, b, three, other_three, c, five]
    assert numbers(events) == [1, 2, 3, 3, 4, 5]


async def test_an_id_that_was_lost_may_be_stored_later(engine: Engine) -> None:
    """Its arrival does not count as stored."""
    inbox = await engine.open()
    engine.fail("no room")
    with pytest.raises(InboxError):
        await inbox.append([arrival(1, name="a")])
    engine.fail(None)
    await until_well(inbox)
    [position] = await inbox.append([arrival(1, name="a")])
    assert [event.position for event in await read_all(inbox) if event.arrival.message] == [position]


# Subscribing


async def test_a_live_subscription_gives_what_comes_from_now_on(engine: Engine) -> None:
    """It starts when subscribe returns, not at the first read."""
    inbox = await engine.open()
    *_, latest = await positions_of(inbox, 3)
    subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)
    assert subscription.position == latest
    positions = await inbox.append(some(4, 5))
    assert numbers(await collect(subscription, 2)) == [4, 5]
    assert subscription.position == positions[-1]


@pytest.mark.parametrize("deleted", [0, 4])
async def test_a_subscription_from_the_beginning_gives_all_that_is_kept(engine: Engine, deleted: int) -> None:
    """It starts with the oldest event and continues with new ones."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 10)
    await engine.delete_oldest(deleted)
    subscription = await inbox.subscribe(EVERYTHING, Start.BEGINNING)
    assert subscription.position == positions[deleted] == (await inbox.bounds()).earliest
    first = await collect(subscription, 10 - deleted)
    await inbox.append(some(11, 12))
    assert numbers(first + await collect(subscription, 2)) == list(range(deleted + 1, 13))


async def test_a_subscription_starts_after_any_position_that_is_kept(engine: Engine) -> None:
    """That of each event, and the one before the oldest; positions of deleted events are expired."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 10)
    await engine.delete_oldest(4)
    for number in range(4, 10):
        subscription = await inbox.subscribe(EVERYTHING, positions[number])
        assert subscription.position == positions[number]
        assert numbers(await collect(subscription, 10 - number)) == list(range(number + 1, 11))
    assert (await inbox.subscribe(EVERYTHING, positions[10])).position == positions[10]
    for number in range(4):
        with pytest.raises(PositionExpired) as expired:
            await inbox.subscribe(EVERYTHING, positions[number])
        assert expired.value.earliest == positions[4]


async def test_an_empty_inbox_has_one_position(engine: Engine) -> None:
    """Both before the first event and after the last one was deleted."""
    inbox = await engine.open()
    latest = (await inbox.bounds()).latest
    for start in (Start.LIVE, Start.BEGINNING, latest):
        assert (await inbox.subscribe(EVERYTHING, start)).position == latest
    *_, before, latest = await positions_of(inbox, 3)
    await engine.delete_oldest(3)
    for start in (Start.LIVE, Start.BEGINNING, latest):
        assert (await inbox.subscribe(EVERYTHING, start)).position == latest
    with pytest.raises(PositionExpired) as expired:
        await inbox.subscribe(EVERYTHING, before)
    assert expired.value.earliest == latest


async def test_the_stored_and_the_new_join_without_a_gap(engine: Engine) -> None:
    """Subscribers of any speed, started at any time during many appends, get each event once, in order."""
    inbox = await engine.open()
    total = 2000
    draw = random.Random(1)

    async def subscribe(start: Start, turns: int) -> None:
        subscription = await inbox.subscribe(EVERYTHING, start)
        got: list[int] = []
        while not got or got[-1] < total:
            batch = await anext(subscription)
            assert subscription.position == batch.position
            got += numbers(batch.events)
            for _ in range(turns):
                await asyncio.sleep(0)
        assert got == list(range(got[0], total + 1))
        assert got[0] == 1 or start is Start.LIVE

    tasks: list[asyncio.Task[None]] = []
    number = 1
    while number <= total:
        count = min(draw.randrange(1, 40), total + 1 - number)
        is_stored = inbox.append(some(number, number + count - 1))
        number += count
        if draw.random() < 0.3 and len(tasks) < 12:
            start = draw.choice([Start.BEGINNING, Start.BEGINNING, Start.LIVE])
            tasks.append(asyncio.create_task(subscribe(start, draw.choice([0, 1, 20]))))
        if draw.random() < 0.5:
            await is_stored
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    assert len(tasks) == 12


async def test_what_another_writer_appends_appears_live(engine: Engine) -> None:
    """Among the others, once, in one order for all; ids are unique across writers."""
    if not engine.has_second_writer:
        pytest.skip("this engine keeps a second writer away")
    ours = await engine.open()
    theirs = await engine.second_writer()
    subscriptions = [await one.subscribe(EVERYTHING, Start.LIVE) for one in (ours, theirs)]
    appends = []
    for number in range(0, 100, 2):
        appends.append(ours.append([arrival(number, name=f"{number}")]))
        appends.append(theirs.append([arrival(number + 1), arrival(number, name=f"{number}")]))
        await asyncio.sleep(0)
    await asyncio.gather(*appends)
    first, second = [await collect(one, 100) for one in subscriptions]
    assert first == second == await read_all(ours) == await read_all(theirs)
    assert sorted(numbers(first)) == list(range(100))
    assert [n for n in numbers(first) if n % 2] == list(range(1, 100, 2))


async def test_gaps_are_normal(engine: Engine) -> None:
    """Single deleted events, including the oldest and the newest, cause no error."""
    inbox = await engine.open(heartbeat=SOON)
    positions = await positions_of(inbox, 200)
    gone = [1, 2, 50, 51, 52, 119, 200]
    for number in gone:
        await engine.delete(positions[number])

    def left(got: list[int], first: int) -> bool:
        """Whether all remaining events were returned once, in order; a deleted one may still be in memory."""
        wanted = [number for number in range(first, 201) if number not in gone]
        return [one for one in got if one not in gone] == wanted and got == sorted(set(got))

    assert left(numbers(await read_all(inbox)), 1)
    for first in (None, 0, 1, 50, 199, 200):
        start = Start.BEGINNING if first is None else positions[first]
        subscription = await inbox.subscribe(EVERYTHING, start)
        events: list[Event] = []
        while subscription.position != positions[200]:
            events += (await anext(subscription)).events
        assert left(numbers(events), (first or 0) + 1)
    await inbox.append([arrival(201)])
    assert numbers(await collect(subscription, 1)) == [201]


async def test_a_subscriber_that_the_retention_overtakes_is_told(engine: Engine) -> None:
    """Also during a stream, and at each further try: no event is skipped silently."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 3)
    subscription = await inbox.subscribe(EVERYTHING, positions[0])
    assert numbers(await collect(subscription, 3)) == [1, 2, 3]
    await inbox.append(
        [arrival(size=60_000) for _ in range(300)]
    )  # more than fits into any memory of what is new
    await engine.delete_oldest(10)
    earliest = (await inbox.bounds()).earliest
    for _ in range(2):
        with pytest.raises(PositionExpired) as expired:
            await anext(subscription)
        assert expired.value.earliest == earliest
        assert subscription.position == positions[3]
    again = await inbox.subscribe(EVERYTHING, earliest)
    assert len(await collect(again, 293)) == 293


# Filters

A_TYPE = TypeSet([range(3, 4)])
FILTERS = (
    Filter(),
    EVERYTHING,
    Filter(peer_ids=frozenset({ALICE})),
    Filter(peer_ids=frozenset({ALICE, BOB}), peer_events=True),
    Filter(peer_ids=frozenset({b"\x02" + b"x" * 32})),
    Filter(peer_ids=frozenset()),
    Filter(peer_ids=frozenset(b"\x02" + number.to_bytes(32, "big") for number in range(1200)) | {BOB}),
    Filter(types=A_TYPE),
    Filter(types=A_TYPE, peer_events=True),
    Filter(types=TypeSet([range(2), range(3, 5), range(40_000, 40_001)])),
    Filter(types=TypeSet([])),
    Filter(types=TypeSet([range(4, 65_536)])),
    Filter(types=TypeSet([range(0, 65_536, 2)[number : number + 1] for number in range(1500)])),
    Filter(peer_ids=frozenset({BOB}), types=A_TYPE),
    Filter(peer_ids=frozenset({BOB}), types=A_TYPE, peer_events=True),
)


def mixture(count: int, seed: int = 1) -> list[Arrival]:
    """Make arrivals of all kinds, of several peers and types."""
    draw = random.Random(seed)
    return [
        arrival(
            number,
            kind=draw.choice([Kind.MESSAGE] * 6 + [Kind.CONNECTED, Kind.DISCONNECTED, Kind.INTERRUPTION]),
            peer_id=draw.choice([ALICE, ALICE, BOB, b"\x02" + b"c" * 32, b"\x02" + b"d" * 32]),
            message_type=draw.choice([0, 1, 2, 3, 4, 5, 40_000, 65_535]),
            size=draw.choice([10, 100]),
        )
        for number in range(count)
    ] + [Arrival(Kind.INTERRUPTION, 1), arrival(kind=Kind.INTERRUPTION, peer_id=BOB)]


@pytest.mark.parametrize("wanted", FILTERS)
async def test_a_subscriber_gets_what_passes_its_filter_and_no_more(engine: Engine, wanted: Filter) -> None:
    """Of stored and new events; the position advances past events that do not match."""
    inbox = await engine.open(heartbeat=SOON)
    stored, new = mixture(3000), mixture(50, seed=2)
    live = await inbox.subscribe(wanted, Start.LIVE)
    await inbox.append(stored)
    late = await inbox.subscribe(wanted, Start.BEGINNING)
    position = (await inbox.append(new))[-1]
    expected = [nameless(one) for one in stored + new if wanted.passes(one)]
    for subscription in (live, late):
        got: list[Event] = []
        while subscription.position != position:
            got += (await anext(subscription)).events
        assert [nameless(event.arrival) for event in got] == expected
    assert [nameless(event.arrival) for event in await read_all(inbox, wanted, 500)] == expected


async def test_an_interruption_passes_whatever_types_are_wanted(engine: Engine) -> None:
    """An interruption of all peers reaches every subscriber, one of a peer the subscribers that want this peer."""
    inbox = await engine.open()
    of_all, of_bob = Arrival(Kind.INTERRUPTION, 1, lost=3), arrival(kind=Kind.INTERRUPTION, peer_id=BOB)
    await inbox.append([arrival(1), of_all, arrival(2), of_bob])
    for wanted, expected in (
        (Filter(types=TypeSet([])), [of_all, of_bob]),
        (Filter(peer_ids=frozenset({ALICE}), types=TypeSet([])), [of_all]),
        (Filter(peer_ids=frozenset({BOB}), types=TypeSet([])), [of_all, of_bob]),
    ):
        assert [event.arrival for event in await read_all(inbox, wanted)] == expected


async def test_a_narrow_subscriber_hears_where_it_is(engine: Engine) -> None:
    """After many events that do not match, before the heartbeat, so that a resume does not read them again."""
    inbox = await engine.open()
    positions = await inbox.append([arrival() for _ in range(12_000)])
    subscription = await inbox.subscribe(Filter(peer_ids=frozenset({BOB})), Start.BEGINNING)
    batch = await anext(subscription)
    while positions.index(batch.position) < 9000:
        assert batch.events == []
        assert batch.position == subscription.position
        batch = await anext(subscription)
    [position] = await inbox.append([arrival(1, peer_id=BOB)])
    while not batch.events:
        batch = await anext(subscription)
    assert batch == Batch([Event(position, arrival(1, peer_id=BOB))], position)


async def test_an_idle_subscription_says_where_it_is(engine: Engine) -> None:
    """A heartbeat has the position, so that a consumer with a narrow filter can acknowledge it."""
    inbox = await engine.open(heartbeat=SOON)
    subscription = await inbox.subscribe(Filter(peer_ids=frozenset({BOB})), Start.LIVE)
    assert await anext(subscription) == Batch([], subscription.position)
    position = (await inbox.append(some(1, 3)))[-1]
    while subscription.position != position:
        assert (await anext(subscription)).events == []


# Waiting and ending


async def next_of(subscription: Subscription) -> Batch:
    return await anext(subscription)


async def test_all_who_wait_are_woken(engine: Engine) -> None:
    """An append wakes all subscriptions; those whose filter does not match continue to wait."""
    inbox = await engine.open()
    subscriptions = [await inbox.subscribe(EVERYTHING, Start.LIVE) for _ in range(3)]
    other = await inbox.subscribe(Filter(peer_ids=frozenset({BOB})), Start.LIVE)
    tasks = [asyncio.create_task(next_of(one)) for one in (*subscriptions, other)]
    await asyncio.sleep(0)
    await inbox.append(some(1, 2))
    for batch in await asyncio.gather(*tasks[:3]):
        assert numbers(batch.events) == [1, 2]
    assert not tasks[3].done()
    await inbox.append([arrival(3, peer_id=BOB)])
    assert numbers((await tasks[3]).events) == [3]


@pytest.mark.parametrize("stored", [0, 500])
async def test_a_cancelled_wait_loses_nothing(engine: Engine, stored: int) -> None:
    """The subscription continues where it was, whether it waited for new or for stored events."""
    inbox = await engine.open()
    subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)
    start = subscription.position
    await inbox.append(some(1, stored))
    for turns in range(5):
        task = asyncio.create_task(next_of(subscription))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            subscription = await inbox.subscribe(EVERYTHING, start)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert subscription.position == start
    await inbox.append(some(stored + 1, stored + 10))
    assert numbers(await collect(subscription, stored + 10)) == list(range(1, stored + 11))


async def test_a_closed_inbox_ends_its_subscriptions_and_refuses_what_comes(engine: Engine) -> None:
    """Waiting subscriptions end, later calls get an error, and appended events are stored."""
    inbox = await engine.open()
    subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)

    async def read() -> int:
        return sum([len(batch.events) async for batch in subscription])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    last = inbox.append(some(1, 50))
    await inbox.close()
    assert await reading <= 50
    assert [batch async for batch in subscription] == []
    assert len(await last) == 50
    with pytest.raises(InboxError):
        await inbox.append([arrival()])
    for refused in (
        inbox.subscribe(EVERYTHING, Start.LIVE),
        inbox.read(EVERYTHING, None, 1),
        inbox.bounds(),
        inbox.consumers.open("a", Start.LIVE),
        inbox.consumers.list(),
    ):
        with pytest.raises(InboxError):
            await refused
    assert numbers(await read_all(await engine.open())) == list(range(1, 51))


async def test_a_subscription_that_is_let_go_ends(engine: Engine) -> None:
    """A waiting task is woken; other subscriptions continue."""
    inbox = await engine.open()
    subscription, other = [await inbox.subscribe(EVERYTHING, Start.LIVE) for _ in range(2)]
    waiting = asyncio.create_task(next_of(subscription))
    await asyncio.sleep(0)
    await subscription.aclose()
    [ended] = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(ended, StopAsyncIteration)
    await inbox.append([arrival(1)])
    assert [batch async for batch in subscription] == []
    assert numbers(await collect(other, 1)) == [1]


# Positions


@pytest.mark.parametrize(
    "text", ["", " ", "0", "-", "/", "@", "1-", "-1", "latest", "0123456789abcdef", "é", "\0", "x" * 200]
)
async def test_a_text_that_is_not_a_position_is_refused(engine: Engine, text: str) -> None:
    """By each method that takes a position."""
    inbox = await engine.open()
    await inbox.consumers.open("a", Start.LIVE)
    await refused_everywhere(inbox, Position(text), PositionInvalid)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(max_size=30), st.integers(0, 40), st.integers(0, 3))
async def test_a_changed_position_is_refused_or_is_another_one(
    engine: Engine, inserted: str, at: int, removed: int
) -> None:
    """No change of a valid position raises anything but a PositionError."""
    inbox = await engine.open()
    position = (await inbox.bounds()).latest
    with suppress(PositionError):
        await inbox.subscribe(EVERYTHING, Position(position[:at] + inserted + position[at + removed :]))
    await inbox.close()


async def test_a_position_of_another_inbox_is_refused(engine: Engine) -> None:
    """Even if this inbox has as many events."""
    inbox, other = await engine.open(), await engine.open_other()
    await inbox.append(some(1, 3))
    await inbox.consumers.open("a", Start.LIVE)
    for position in await positions_of(other, 3):
        await refused_everywhere(inbox, position, PositionOfOtherInbox)


async def test_a_position_after_the_newest_event_is_refused(engine: Engine) -> None:
    """The error has the newest position."""
    inbox = await engine.open()
    *_, latest = await positions_of(inbox, 3)
    await inbox.consumers.open("a", Start.LIVE)
    error = await refused_everywhere(inbox, engine.after(latest), PositionNotReached)
    assert isinstance(error, PositionNotReached)
    assert error.latest == latest


async def refused_everywhere(inbox: Inbox, position: Position, kind: type[PositionError]) -> PositionError:
    """Check that a position is refused by each method; return the last error."""
    for refused in (
        inbox.subscribe(EVERYTHING, position),
        inbox.read(EVERYTHING, position, 10),
        inbox.consumers.open("b", position),
        inbox.consumers.ack("a", position),
    ):
        with pytest.raises(kind) as caught:
            await refused
    assert [one.name for one in await inbox.consumers.list()] == ["a"], "none was made"
    return caught.value


async def test_a_position_means_the_same_after_a_restart(engine: Engine) -> None:
    """A subscription resumes at the same place, with the events after it."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 5)
    await inbox.close()
    inbox = await engine.open()
    await inbox.append([arrival(6)])
    assert numbers(await collect(await inbox.subscribe(EVERYTHING, positions[3]), 3)) == [4, 5, 6]


# Reading by page


@pytest.mark.parametrize("limit", [1, 7, 500, 100_000])
async def test_pages_join_without_a_gap(engine: Engine, limit: int) -> None:
    """From the beginning or after a position, in any size; the last page is marked."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 60)
    assert numbers(await read_all(inbox, limit=limit)) == list(range(1, 61))
    batch = await inbox.read(EVERYTHING, positions[58], limit)
    assert numbers(batch.events) == [59, 60][:limit]
    assert batch.is_last or limit == 1
    last = await inbox.read(EVERYTHING, positions[60], limit)
    assert (last.events, last.position, last.is_last) == ([], positions[60], True)
    await engine.delete_oldest(10)
    with pytest.raises(PositionExpired):
        await inbox.read(EVERYTHING, positions[9], limit)
    assert numbers(await read_all(inbox, limit=limit)) == list(range(11, 61))


async def test_the_bounds_say_what_is_held(engine: Engine) -> None:
    """Of an empty, a filled, a pruned and an emptied inbox."""
    inbox = await engine.open()
    empty = await inbox.bounds()
    assert (empty.earliest, empty.count, empty.oldest_ns) == (empty.latest, 0, 0)
    positions = await inbox.append([arrival(time_ns=time, size=1000) for time in (10, 20, 30)])
    full = await inbox.bounds()
    assert (full.earliest, full.latest, full.count, full.oldest_ns) == (empty.latest, positions[2], 3, 10)
    assert full.size >= 3000
    await engine.delete_oldest(1)
    held = await inbox.bounds()
    assert (held.earliest, held.latest, held.count, held.oldest_ns) == (positions[0], positions[2], 2, 20)
    await engine.delete_oldest(2)
    held = await inbox.bounds()
    assert (held.earliest, held.latest, held.count, held.oldest_ns) == (positions[2], positions[2], 0, 0)


# Consumers


async def test_a_consumer_is_made_where_it_is_to_start_and_then_stays(engine: Engine) -> None:
    """The first open creates it; a later one returns its position, whatever its start is."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 5)
    assert await inbox.consumers.open("live", Start.LIVE) == positions[5]
    assert await inbox.consumers.open("all", Start.BEGINNING) == positions[0]
    assert await inbox.consumers.open("third", positions[3]) == positions[3]
    await inbox.append([arrival(6)])
    for name, position in (("live", positions[5]), ("all", positions[0]), ("third", positions[3])):
        for start in (*Start, positions[1], Position("nonsense")):
            assert await inbox.consumers.open(name, start) == position


async def test_a_consumer_moves_forward_only(engine: Engine) -> None:
    """A late acknowledgement changes nothing; the consumer has to exist."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 5)
    consumers = inbox.consumers
    assert await consumers.ack("a", positions[3]) is None
    assert await consumers.list() == []
    await consumers.open("a", Start.BEGINNING)
    assert await consumers.ack("a", positions[3]) == positions[3]
    assert await consumers.ack("a", positions[2]) == positions[3]
    assert await consumers.ack("a", positions[5]) == positions[5]
    assert await consumers.open("a", Start.LIVE) == positions[5]


async def test_consumers_are_listed_with_what_they_have_to_do(engine: Engine) -> None:
    """By name, with the number of events that follow, and whether some of them were deleted."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 10)
    for name, number in (("c", 2), ("a", 10), ("b", 4)):
        await inbox.consumers.open(name, positions[number])
    await engine.delete_oldest(3)
    listed = await inbox.consumers.list()
    assert [(one.name, one.position, one.is_expired) for one in listed] == [
        ("a", positions[10], False),
        ("b", positions[4], False),
        ("c", positions[2], True),
    ]
    a, b, c = listed
    assert (a.lag, b.lag) == (0, 6) or (a.lag == 0 < b.lag)
    assert c.lag > b.lag
    assert await inbox.consumers.ack("c", positions[2]) == positions[2], (
        "it may stay, and be told when it resumes"
    )
    with pytest.raises(PositionExpired):
        await inbox.consumers.open("d", positions[2])


async def test_consumers_are_kept_until_they_are_deleted(engine: Engine) -> None:
    """Also over a restart; a deleted consumer starts again."""
    inbox = await engine.open()
    positions = await positions_of(inbox, 5)
    await inbox.consumers.open("a", Start.BEGINNING)
    await inbox.consumers.open("b", Start.BEGINNING)
    await inbox.consumers.ack("a", positions[3])
    await inbox.close()
    inbox = await engine.open()
    listed = [(one.name, one.position) for one in await inbox.consumers.list()]
    assert listed == [("a", positions[3]), ("b", positions[0])]
    assert await inbox.consumers.delete("a")
    assert not await inbox.consumers.delete("a")
    assert [one.name for one in await inbox.consumers.list()] == ["b"]
    assert await inbox.consumers.open("a", positions[1]) == positions[1]


# Failing


async def until_well(inbox: Inbox) -> None:
    """Wait until storing works; append only what makes the engine try."""
    well = asyncio.Event()
    inbox.watch(lambda error: well.set() if error is None else None)
    while not well.is_set():
        try:
            await inbox.append([arrival(kind=Kind.CONNECTED)])
        except InboxError:
            await asyncio.sleep(0)


async def test_a_loss_is_told_in_its_place(engine: Engine) -> None:
    """The append fails, `error` says why, and an interruption with the count precedes later events."""
    inbox = await engine.open()
    errors: list[str | None] = []
    inbox.watch(errors.append)
    subscription = await inbox.subscribe(Filter(), Start.LIVE)
    await inbox.append([arrival(1)])
    engine.fail("no room")
    for lost in ([arrival(2), arrival(3), arrival(kind=Kind.CONNECTED)], [arrival(4)]):
        with pytest.raises(InboxError, match="no room"):
            await inbox.append(lost)
    assert inbox.error == "no room"
    assert numbers(await read_all(inbox)) == [1], "what is stored can be read"
    engine.fail(None)
    await until_well(inbox)
    await inbox.append([arrival(5)])
    events = await collect(subscription, 3)
    assert [event.arrival.kind for event in events] == [Kind.MESSAGE, Kind.INTERRUPTION, Kind.MESSAGE]
    assert [event.arrival.lost for event in events] == [0, 3, 0]
    assert numbers([events[0], events[2]]) == [1, 5]
    assert errors == [None, "no room", None]
    assert inbox.error is None
