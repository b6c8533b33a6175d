"""Subscriptions: where they start, what they give, when they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Event, Retention, StoreError
from custommsg_server.inbox.position import PositionExpired, PositionUnknown, Start
from custommsg_server.inbox.sqlite.feed import Batch, Feed
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import ALICE, BOB, arrival, collect, numbers, sequences

EVERYTHING = Filter()
SOON = 0.01
NEVER = 1e6
ROOM_FOR_FEW = 5 * 410


class Inbox:
    """A feed and the store behind it, without threads."""

    def __init__(self, store: SqliteStore, recent_size: int, heartbeat: float) -> None:
        self.store = store
        self.reads: list[int] = []
        self.feed = Feed(self.read, recent_size, heartbeat)
        self.feed.open(store.range())

    async def read(self, after: int, limit: int, max_size: int) -> list[Event]:
        self.reads.append(after)
        await asyncio.sleep(0)  # as a thread would let others run
        return self.store.read(after, limit, max_size)

    def append(self, *arrivals: Arrival) -> None:
        self.feed.publish(self.store.append(arrivals))

    def prune(self, count: int) -> None:
        self.store.prune(Retention(0, 0), 10, count)
        self.feed.forget(self.store.range().earliest)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "inbox.db")
    yield store
    store.close()


@pytest.fixture
def inbox(store: SqliteStore) -> Inbox:
    return Inbox(store, ROOM_FOR_FEW, NEVER)


def some(first: int, last: int) -> list[Arrival]:
    return [arrival(number) for number in range(first, last + 1)]


async def test_a_live_subscription_gives_what_comes_from_now_on(inbox: Inbox) -> None:
    """Now is the moment of subscribing, not that of the first read."""
    inbox.append(*some(1, 3))
    subscription = inbox.feed.subscribe(EVERYTHING)
    assert subscription.position == 3
    inbox.append(*some(4, 5))
    assert sequences(await collect(subscription, 2)) == [4, 5]
    assert subscription.position == 5


@pytest.mark.parametrize("pruned", [0, 4])
async def test_a_subscription_from_the_beginning_gives_all_that_is_kept(inbox: Inbox, pruned: int) -> None:
    """It starts with the oldest event and goes on with what is new."""
    inbox.append(*some(1, 10))
    inbox.prune(pruned)
    subscription = inbox.feed.subscribe(EVERYTHING, Start.BEGINNING)
    assert subscription.position == pruned
    first = await collect(subscription, 10 - pruned)
    inbox.append(*some(11, 12))
    assert numbers(first + await collect(subscription, 2)) == list(range(pruned + 1, 13))


async def test_a_subscription_starts_after_any_position_that_is_kept(inbox: Inbox) -> None:
    """From just before the oldest event to the newest; next to these it is refused, with the reason."""
    inbox.append(*some(1, 10))
    inbox.prune(4)
    for after in range(4, 10):
        assert sequences(await collect(inbox.feed.subscribe(EVERYTHING, after), 10 - after))[0] == after + 1
    assert inbox.feed.subscribe(EVERYTHING, 10).position == 10
    with pytest.raises(PositionExpired, match="the oldest event kept is 5") as expired:
        inbox.feed.subscribe(EVERYTHING, 3)
    assert (expired.value.earliest, expired.value.latest) == (5, 10)
    with pytest.raises(PositionUnknown, match="the newest event of this one is 10") as unknown:
        inbox.feed.subscribe(EVERYTHING, 11)
    assert (unknown.value.earliest, unknown.value.latest) == (5, 10)


async def test_an_empty_inbox_has_one_position(inbox: Inbox) -> None:
    """Everything starts at 0 before the first event, and at the newest one after the last was forgotten."""
    for start in (Start.LIVE, Start.BEGINNING, 0):
        assert inbox.feed.subscribe(EVERYTHING, start).position == 0
    inbox.append(*some(1, 3))
    inbox.prune(3)
    for start in (Start.LIVE, Start.BEGINNING, 3):
        assert inbox.feed.subscribe(EVERYTHING, start).position == 3
    with pytest.raises(PositionExpired) as expired:
        inbox.feed.subscribe(EVERYTHING, 2)
    assert expired.value.earliest == 4


async def test_an_inbox_that_is_not_open_has_no_positions(store: SqliteStore) -> None:
    """Before the store was opened, nobody can subscribe."""
    feed = Feed(store.read, 1000, NEVER)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="not be opened"):
        feed.subscribe(EVERYTHING)


async def test_a_subscriber_that_retention_overtakes_is_told(inbox: Inbox) -> None:
    """In mid-stream, too, nothing is skipped in silence."""
    inbox.append(*some(1, 3))
    subscription = inbox.feed.subscribe(EVERYTHING, 0)
    assert sequences(await collect(subscription, 3)) == [1, 2, 3]
    inbox.append(*some(4, 20))
    inbox.prune(10)
    for _ in range(2):
        with pytest.raises(PositionExpired) as expired:
            await anext(subscription)
        assert expired.value.earliest == 11
        assert subscription.position == 3
    inbox.prune(100)
    with pytest.raises(PositionExpired) as expired:
        await anext(subscription)
    assert expired.value.earliest == 21


async def test_a_filter_leaves_out_and_the_position_goes_on(inbox: Inbox) -> None:
    """What was not wanted counts as dealt with."""
    subscription = inbox.feed.subscribe(Filter(node_ids=frozenset({ALICE})))
    inbox.append(*(arrival(number, node_id=ALICE if number % 2 else BOB) for number in range(1, 5)))
    batch = await anext(subscription)
    assert (sequences(batch.events), batch.position) == ([1, 3], 4)


async def test_an_idle_subscription_says_where_it_is(store: SqliteStore) -> None:
    """A heartbeat carries the position, so that a consumer with a narrow filter can store it."""
    inbox = Inbox(store, ROOM_FOR_FEW, SOON)
    subscription = inbox.feed.subscribe(Filter(node_ids=frozenset({BOB})))
    assert await anext(subscription) == Batch([], 0)
    inbox.append(*some(1, 3))
    assert await anext(subscription) == Batch([], 3)
    assert subscription.position == 3


async def test_a_subscription_that_passes_over_many_events_says_so(store: SqliteStore) -> None:
    """Long before the heartbeat: else a resume would have to pass over all of them once more."""
    inbox = Inbox(store, 1 << 20, NEVER)
    inbox.append(*some(1, 12_000))
    inbox.append(arrival(node_id=BOB))
    subscription = inbox.feed.subscribe(Filter(node_ids=frozenset({BOB})), 0)
    positions = [(await anext(subscription)).position for _ in range(3)]
    assert 5000 <= positions[0] < 6000
    assert positions[-1] == 12_001


async def test_a_batch_is_bounded(store: SqliteStore) -> None:
    """From memory and from the store alike, in count and in bytes; one event is always possible."""
    for recent_size in (0, 1 << 30):
        inbox = Inbox(store, recent_size, NEVER)
        inbox.append(*some(1, 2000))
        inbox.append(*[arrival(size=65_535)] * 100)
        subscription = inbox.feed.subscribe(EVERYTHING, inbox.feed.latest - 2100)
        while subscription.position < inbox.feed.latest:
            events = (await anext(subscription)).events
            assert 0 < len(events) <= 500
            assert sum(len(event.arrival.message) for event in events) <= 1 << 20


async def test_only_who_is_behind_reads_the_store(store: SqliteStore) -> None:
    """What was committed last is shared in memory."""
    inbox = Inbox(store, ROOM_FOR_FEW, NEVER)
    subscriptions = [inbox.feed.subscribe(EVERYTHING) for _ in range(10)]
    for number in range(1, 20):
        inbox.append(arrival(number))
        for subscription in subscriptions:
            assert numbers((await anext(subscription)).events) == [number]
    assert inbox.reads == []
    late = inbox.feed.subscribe(EVERYTHING, 0)
    assert sequences(await collect(late, 19)) == list(range(1, 20))
    assert inbox.reads == [0]


async def test_memory_for_recent_events_is_bounded(store: SqliteStore) -> None:
    """Large events push out many small ones, and what is larger than all the room is not kept in memory."""
    inbox = Inbox(store, ROOM_FOR_FEW, NEVER)
    for _ in range(10):
        inbox.append(*some(1, 20))
        assert len(inbox.feed._recent) == 5
    inbox.append(arrival(size=1500))
    assert len(inbox.feed._recent) == 1
    inbox.append(arrival(size=5000))
    assert len(inbox.feed._recent) == 0
    assert sequences(await collect(inbox.feed.subscribe(EVERYTHING, 199), 3)) == [200, 201, 202]


@asynccontextmanager
async def waiting(*subscriptions: AsyncIterator[Batch]) -> AsyncIterator[list[asyncio.Task[Batch]]]:
    """Let subscriptions wait for their next batch."""

    async def next_of(subscription: AsyncIterator[Batch]) -> Batch:
        return await anext(subscription)

    tasks = [asyncio.create_task(next_of(subscription)) for subscription in subscriptions]
    for _ in range(5):
        await asyncio.sleep(0)  # until all of them wait
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_who_wait_are_woken(inbox: Inbox) -> None:
    """One commit wakes everybody, those who want nothing of it included, who go on waiting."""
    subscriptions = [inbox.feed.subscribe(EVERYTHING) for _ in range(3)]
    other = inbox.feed.subscribe(Filter(node_ids=frozenset({BOB})))
    async with waiting(*subscriptions, other) as tasks:
        inbox.append(*some(1, 2))
        batches = await asyncio.gather(*tasks[:3])
        assert [sequences(batch.events) for batch in batches] == [[1, 2]] * 3
        assert not tasks[3].done()
        inbox.append(arrival(node_id=BOB))
        assert sequences((await tasks[3]).events) == [3]


@pytest.mark.parametrize("is_behind", [True, False])
async def test_a_cancelled_wait_loses_nothing(inbox: Inbox, is_behind: bool) -> None:
    """Whether it waited for news or for the store, the subscription goes on where it was."""
    subscription = inbox.feed.subscribe(EVERYTHING)
    if is_behind:
        inbox.append(*some(1, 10))
        task = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        assert inbox.reads == [0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    else:
        async with waiting(subscription):
            pass
        inbox.append(*some(1, 10))
    assert subscription.position == 0
    assert sequences(await collect(subscription, 10)) == list(range(1, 11))


async def test_a_closed_feed_ends_its_subscriptions(inbox: Inbox) -> None:
    """Those who wait and those who come later end as any iterator does."""
    subscription = inbox.feed.subscribe(EVERYTHING)

    async def read() -> int:
        return len([batch async for batch in subscription])

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    inbox.feed.close()
    assert await task == 0
    assert [batch async for batch in subscription] == []


async def test_events_that_were_committed_unnoticed_are_given(inbox: Inbox) -> None:
    """A commit that seemed to fail, and did not, leaves its events in the store: they are read from there."""
    subscription = inbox.feed.subscribe(EVERYTHING)
    inbox.append(*some(1, 2))
    inbox.store.append(some(3, 4))
    inbox.append(*some(5, 6))
    assert numbers(await collect(subscription, 6)) == [1, 2, 3, 4, 5, 6]
