"""Random interleavings of operations on the feed: each event once, in order, or an error."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, PositionExpired, PositionNotReached, Start
from custommsg_server.inbox.sqlite.feed import Feed, FeedSubscription
from custommsg_server.inbox.sqlite.inbox import SqliteInbox
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore, Stored
from support.inboxes import ALICE, BOB, EVERYTHING, arrival, fast_directory, sequences

FILTERS = (
    EVERYTHING,
    Filter(),
    Filter(peer_ids=frozenset({ALICE}), peer_events=True),
    Filter(types=TypeSet([range(3)])),
    Filter(frozenset({BOB}), TypeSet([range(2)])),
)


@dataclass
class Subscriber:
    """A subscription, and the events that it has returned."""

    subscription: FeedSubscription
    wanted: Filter
    start: int
    events: list[Event] = field(default_factory=list)
    is_expired: bool = False


@dataclass(frozen=True)
class Append:
    count: int
    seed: int


@dataclass(frozen=True)
class Publish:
    """The loop gets the report of a commit."""


@dataclass(frozen=True)
class Prune:
    count: int
    is_heard_of: bool


@dataclass(frozen=True)
class Evict:
    """A single event is deleted."""

    number: int


@dataclass(frozen=True)
class Subscribe:
    filter_index: int
    start: Start | int


@dataclass(frozen=True)
class Read:
    subscriber: int
    meanwhile: Append | Prune | Publish | Evict | None
    """The steps that happen while it waits for the store."""


appends = st.builds(Append, st.integers(1, 12), st.integers(0, 99))
prunes = st.builds(Prune, st.integers(1, 20), st.booleans())
publishes = st.just(Publish())
evicts = st.builds(Evict, st.integers(0, 100))
starts = st.sampled_from(Start) | st.integers(0, 40)
subscribes = st.builds(Subscribe, st.integers(0, len(FILTERS) - 1), starts)
reads = st.builds(Read, st.integers(0, 5), st.none() | appends | prunes | publishes | evicts)
Operation = Append | Publish | Prune | Evict | Subscribe | Read


class World:
    """A feed over a store; each step happens when the test asks for it."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.feed = Feed(self.read, 5 * 510, heartbeat=0)
        self.feed.open(self.store.positions, self.store.held())
        self.committed: list[Event] = []
        self.evicted: set[str] = set()
        self.unheard: list[Stored] = []
        self.subscribers: list[Subscriber] = []
        self.meanwhile: Append | Prune | Publish | Evict | None = None

    async def read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        if self.meanwhile is not None:
            await self.do(self.meanwhile)
        return self.store.read(wanted, after, until, min(limit, 4), max_size)

    async def do(self, operation: Operation) -> None:
        match operation:
            case Append(count, seed):
                some = random.Random(seed)
                stored = self.store.append(
                    [
                        arrival(
                            kind=some.choice([Kind.MESSAGE, Kind.MESSAGE, Kind.CONNECTED, Kind.INTERRUPTION]),
                            peer_id=some.choice([ALICE, BOB]),
                            message_type=some.randrange(5),
                            size=some.choice([10, 10, 800]),
                        )
                        for _ in range(count)
                    ]
                )
                self.committed += stored.events
                self.unheard.append(stored)
            case Publish():
                if self.unheard:
                    self.feed.publish(self.unheard.pop(0))
            case Prune(count, is_heard_of):
                self.store.prune(Retention(0, 0), 10, count)
                # The writer reports in order: nothing is heard of before what was committed earlier.
                if is_heard_of and not self.unheard:
                    self.feed.forget(self.store.held().floor)
            case Evict(number):
                if self.committed:
                    position = self.committed[number % len(self.committed)].position
                    self.evicted.add(position)
                    with self.store._writing() as connection:
                        sequence = self.store.positions.sequence(position)
                        connection.execute("DELETE FROM events WHERE sequence = ?", (sequence,))
            case Subscribe(filter_index, start):
                self.subscribe(FILTERS[filter_index], start)
            case Read(number, meanwhile):
                if self.subscribers:
                    self.meanwhile = meanwhile
                    await self.advance(self.subscribers[number % len(self.subscribers)])
                    self.meanwhile = None

    def subscribe(self, wanted: Filter, start: Start | int) -> None:
        where = self.store.positions.of(start) if isinstance(start, int) else start
        if isinstance(start, int) and start < self.feed.floor:
            with pytest.raises(PositionExpired):
                self.feed.subscribe(wanted, where)
        elif isinstance(start, int) and start > self.feed.latest:
            with pytest.raises(PositionNotReached):
                self.feed.subscribe(wanted, where)
        else:
            subscription = self.feed.subscribe(wanted, where)
            self.subscribers.append(Subscriber(subscription, wanted, self.place(subscription)))

    def place(self, subscription: FeedSubscription) -> int:
        return self.store.positions.sequence(subscription.position)

    async def advance(self, subscriber: Subscriber) -> None:
        before = self.place(subscriber.subscription)
        try:
            batch = await anext(subscriber.subscription)
        except PositionExpired as error:
            subscriber.is_expired = True
            assert (
                self.place(subscriber.subscription) == before < self.store.positions.sequence(error.earliest)
            )
        else:
            assert not subscriber.is_expired, "what has expired does not come back"
            assert batch.position == subscriber.subscription.position
            assert before <= self.place(subscriber.subscription) <= self.feed.latest
            subscriber.events += batch.events

    async def finish(self) -> None:
        while self.unheard:
            await self.do(Publish())
        for subscriber in self.subscribers:
            while not subscriber.is_expired and self.place(subscriber.subscription) < self.feed.latest:
                await self.advance(subscriber)
            place = self.place(subscriber.subscription)
            if subscriber.is_expired:
                assert place < self.store.held().floor
            expected = [
                event
                for event, [sequence] in ((event, sequences([event])) for event in self.committed)
                if subscriber.start < sequence <= place and subscriber.wanted.passes(event.arrival)
            ]
            got = subscriber.events
            assert sequences(got) == sorted(set(sequences(got)))
            # One that was deleted alone may have been in memory, or was read before.
            assert [one for one in got if one.position not in self.evicted] == [
                one for one in expected if one.position not in self.evicted
            ]
            assert [one for one in got if one not in expected] == []
        self.store.close()


@given(st.lists(appends | publishes | publishes | prunes | evicts | subscribes | reads | reads, max_size=60))
def test_each_subscriber_sees_everything_once_in_order(operations: list[Operation]) -> None:
    """Each matching event that was committed after its start, once; or PositionExpired."""

    async def run(path: Path) -> None:
        world = World(path)
        for operation in operations:
            await world.do(operation)
        await world.finish()

    with fast_directory() as directory:
        asyncio.run(run(directory / "inbox.db"))


@pytest.mark.parametrize("seed", range(4))
async def test_subscribers_of_any_speed_see_everything_while_old_is_deleted(seed: int) -> None:
    """With all threads: a fast subscriber gets everything, a slow one gets PositionExpired."""
    some = random.Random(seed)
    total = 3000
    with fast_directory() as directory:
        retention = Retention(1e11, 150_000)
        async with SqliteInbox(directory / "inbox.db", retention) as inbox:

            async def subscribe(turns: int) -> bool:
                """Read, with `turns` iterations of the loop after each batch; return whether it got everything."""
                subscription = await inbox.subscribe(Filter(), Start.LIVE)
                expected = 1
                async for batch in subscription:
                    assert sequences(batch.events) == list(range(expected, expected + len(batch.events)))
                    expected += len(batch.events)
                    if expected > total:
                        return True
                    for _ in range(turns):
                        await asyncio.sleep(0)
                return False

            subscribers = [asyncio.create_task(subscribe(turns)) for turns in (0, 0, 1, 50, 1000)]
            await asyncio.sleep(0)
            for _ in range(total // 10):
                is_stored = inbox.append([arrival(size=some.choice([10, 500, 5000])) for _ in range(10)])
                if some.random() < 0.5:
                    await is_stored
            outcomes = await asyncio.gather(*subscribers, return_exceptions=True)
            assert all(outcome is True or isinstance(outcome, PositionExpired) for outcome in outcomes), (
                outcomes
            )
            assert outcomes[0] is True
            assert not (await inbox.bounds()).earliest.endswith("-0")
