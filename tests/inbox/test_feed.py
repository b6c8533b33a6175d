"""The feed of the SQLite engine: what is in memory, and when the store is read. The rest is in test_port.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, InboxError, Position, Start
from custommsg_server.inbox.sqlite import feed
from custommsg_server.inbox.sqlite.feed import Feed, FeedSubscription
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Evicted
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import ALICE, BOB, EVERYTHING, arrival, collect, numbers, sequences, some

NEVER = 1e6
ROOM_FOR_FEW = 5 * 510


class Inbox:
    """A feed and the store behind it, without threads."""

    def __init__(self, store: SqliteStore, recent_size: int) -> None:
        self.store = store
        self.reads: list[int] = []
        self.feed = Feed(self.read, recent_size, NEVER)
        self.feed.open(store.positions, store.held())

    async def read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        self.reads.append(after)
        await asyncio.sleep(0)  # as a thread would let others run
        return self.store.read(wanted, after, until, limit, max_size)

    def append(self, *arrivals: Arrival) -> None:
        self.feed.publish(self.store.append(arrivals))

    def after(self, sequence: int) -> FeedSubscription:
        return self.feed.subscribe(EVERYTHING, self.store.positions.of(sequence))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "inbox.db")
    yield store
    store.close()


@pytest.fixture
def inbox(store: SqliteStore) -> Inbox:
    return Inbox(store, ROOM_FOR_FEW)


async def test_an_inbox_that_is_not_open_has_no_positions(store: SqliteStore) -> None:
    """Before the file was opened, nobody can subscribe or acknowledge."""
    closed = Feed(store.read, 1000, NEVER)  # type: ignore[arg-type]
    for start in (Start.LIVE, Start.BEGINNING, store.positions.of(0)):
        with pytest.raises(InboxError, match="not be opened"):
            closed.subscribe(EVERYTHING, start)
    with pytest.raises(InboxError, match="not be opened"):
        closed.reached(Position("0"))


@pytest.mark.parametrize("recent_size", [0, 1 << 30])
async def test_a_batch_is_bounded(store: SqliteStore, recent_size: int) -> None:
    """In count and in bytes, from memory and from the store; one event is always allowed."""
    inbox = Inbox(store, recent_size)
    inbox.append(*some(1, 2000))
    inbox.append(*[arrival(size=65_535)] * 100)
    subscription = inbox.feed.subscribe(EVERYTHING, Start.BEGINNING)
    count = 0
    while count < 2100:
        events = (await anext(subscription)).events
        assert 0 < len(events) <= 500
        assert sum(len(event.arrival.message) for event in events) <= 1 << 20
        count += len(events)


async def test_a_subscription_that_passes_over_many_events_says_so(store: SqliteStore) -> None:
    """Long before the heartbeat, so that a resume does not have to read them again."""
    inbox = Inbox(store, 1 << 30)
    inbox.append(*some(1, 12_000))
    inbox.append(arrival(peer_id=BOB))
    subscription = inbox.feed.subscribe(Filter(peer_ids=frozenset({BOB})), Start.BEGINNING)
    positions = [int((await anext(subscription)).position.rpartition("-")[2]) for _ in range(3)]
    assert 5000 <= positions[0] < 6000
    assert positions[-1] == 12_001


async def test_only_who_is_behind_reads_the_store(inbox: Inbox) -> None:
    """The newest events are in memory, for all subscribers."""
    subscriptions = [inbox.feed.subscribe(EVERYTHING, Start.LIVE) for _ in range(10)]
    for number in range(1, 20):
        inbox.append(arrival(number))
        for subscription in subscriptions:
            assert numbers((await anext(subscription)).events) == [number]
    assert inbox.reads == []
    assert sequences(await collect(inbox.after(0), 19)) == list(range(1, 20))
    assert inbox.reads == [0]


async def test_memory_for_recent_events_is_bounded(inbox: Inbox) -> None:
    """A large event replaces many small ones; an event larger than the limit is not in memory."""
    for _ in range(10):
        inbox.append(*some(1, 20))
        assert len(inbox.feed._recent) == 5
    inbox.append(arrival(size=1500))
    assert len(inbox.feed._recent) == 2
    inbox.append(arrival(size=5000))
    assert len(inbox.feed._recent) == 0
    assert sequences(await collect(inbox.after(199), 3)) == [200, 201, 202]


async def test_events_that_were_committed_unnoticed_are_given(inbox: Inbox) -> None:
    """If a commit seemed to fail but took effect, its events are read from the store."""
    subscription = inbox.feed.subscribe(EVERYTHING, Start.LIVE)
    inbox.append(*some(1, 2))
    inbox.store.append(some(3, 4))
    inbox.append(*some(5, 6))
    assert numbers(await collect(subscription, 6)) == [1, 2, 3, 4, 5, 6]


async def test_what_is_committed_but_not_published_is_not_given_yet(inbox: Inbox) -> None:
    """A subscriber must not be ahead of the feed, or its position would be refused as not reached."""
    subscription = inbox.feed.subscribe(EVERYTHING, Start.LIVE)
    inbox.append(*some(1, 20))
    stored = inbox.store.append(some(21, 22))
    assert numbers(await collect(subscription, 20)) == list(range(1, 21))
    assert inbox.reads == [0]
    assert inbox.feed.reached(subscription.position) == inbox.feed.latest == 20
    inbox.feed.publish(stored)
    assert numbers(await collect(subscription, 2)) == [21, 22]


async def test_who_wants_the_same_after_the_same_place_shares_the_batch(inbox: Inbox) -> None:
    """So it is filtered and encoded once; nothing of it is kept when nobody has it any more."""
    filters = [Filter(peer_ids=frozenset({ALICE})), Filter(peer_ids=frozenset({ALICE})), EVERYTHING]
    subscriptions = [inbox.feed.subscribe(wanted, Start.LIVE) for wanted in filters]
    inbox.append(arrival(1), arrival(2, peer_id=BOB), arrival(3))
    later = inbox.feed.subscribe(filters[0], inbox.store.positions.of(1))
    one, same, other, third = [await anext(subscription) for subscription in (*subscriptions, later)]
    assert same is one
    assert (numbers(one.events), numbers(other.events), numbers(third.events)) == ([1, 3], [1, 2, 3], [3])
    assert subscriptions[0].position == subscriptions[1].position == one.position
    inbox.append(arrival(4))
    assert numbers((await anext(subscriptions[0])).events) == [4]
    del one, same, other, third
    assert len(inbox.feed._batches) == 0


async def test_an_evicted_event_is_not_in_a_batch_that_is_shared_later(inbox: Inbox) -> None:
    """Who comes to the place afterwards gets what stands there instead."""
    subscriptions = [inbox.feed.subscribe(EVERYTHING, Start.LIVE) for _ in range(2)]
    inbox.append(*some(1, 3))
    before = await anext(subscriptions[0])
    inbox.feed.evict(Evicted([2], Event(inbox.store.positions.of(2), arrival(kind=Kind.INTERRUPTION)), 1))
    after = await anext(subscriptions[1])
    assert [event.arrival.kind for event in before.events] == [Kind.MESSAGE] * 3
    assert [event.arrival.kind for event in after.events] == [Kind.MESSAGE, Kind.INTERRUPTION, Kind.MESSAGE]


async def test_subscribers_have_their_turn_a_few_at_once(inbox: Inbox) -> None:
    """Between them the event loop does other work: lightningd waits for it."""
    subscriptions = [inbox.feed.subscribe(EVERYTHING, Start.LIVE) for _ in range(30)]
    waiting = [asyncio.create_task(anext(subscription)) for subscription in subscriptions]
    await asyncio.sleep(0)
    inbox.append(arrival(1))
    before = most = 0
    while before < 30:
        await asyncio.sleep(0)
        now = sum(task.done() for task in waiting)
        most, before = max(most, now - before), now
    assert 1 < most < 10


async def test_there_are_no_turns_while_the_writer_works_but_not_for_long(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk must not stop the subscribers."""
    monkeypatch.setattr(feed, "_MAX_HOLD", 0.1)
    subscription = inbox.feed.subscribe(EVERYTHING, Start.LIVE)
    for number, does_report in enumerate((True, False), 1):
        waiting = asyncio.create_task(anext(subscription))
        await asyncio.sleep(0)
        stored = inbox.store.append([arrival(number)])
        inbox.feed.hold()
        inbox.feed.publish(stored)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        if does_report:
            inbox.feed.release()
        assert numbers((await waiting).events) == [number]


async def test_who_is_up_to_date_is_not_woken_for_another(inbox: Inbox) -> None:
    """Many that wait for news cost nothing while one reads what is stored."""
    inbox.append(*some(1, 100))
    waiting = asyncio.create_task(anext(inbox.feed.subscribe(EVERYTHING, Start.LIVE)))
    await asyncio.sleep(0)
    up_to_date = set(inbox.feed._up_to_date)
    assert len(await collect(inbox.after(0), 100)) == 100
    assert inbox.feed._up_to_date == up_to_date
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not inbox.feed._up_to_date


async def test_a_subscription_with_a_short_heartbeat_goes_on(store: SqliteStore) -> None:
    """A heartbeat that is due while it waits for its turn does not take the place of its events."""
    inbox = Inbox(store, ROOM_FOR_FEW)
    impatient = Feed(inbox.read, ROOM_FOR_FEW, heartbeat=0)
    impatient.open(store.positions, store.held())
    impatient.publish(store.append(some(1, 20)))
    subscription = impatient.subscribe(EVERYTHING, Start.BEGINNING)
    assert numbers((await anext(subscription)).events) == list(range(1, 21))
    assert (await anext(subscription)).events == []


async def test_a_commit_that_does_not_end_stops_no_subscriber(inbox: Inbox) -> None:
    """While the disk is full, arrivals are passed to the inbox one by one, and none of them is stored."""
    inbox.append(*some(1, 3))
    subscription = inbox.after(0)

    async def keep_holding() -> None:
        while True:
            inbox.feed.hold()
            await asyncio.sleep(0)

    holding = asyncio.create_task(keep_holding())
    assert numbers((await anext(subscription)).events) == [1, 2, 3]
    holding.cancel()
