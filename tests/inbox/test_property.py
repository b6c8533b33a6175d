"""Any interleaving of appends, prunes, subscribes and reads: everything once, in order, or an error that says so."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, Kind, Retention
from custommsg_server.inbox.position import PositionExpired, PositionUnknown, Start
from custommsg_server.inbox.sqlite.feed import Feed, Subscription
from custommsg_server.inbox.sqlite.inbox import Inbox
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import ALICE, BOB, arrival, fast_directory

FILTERS = (
    Filter(),
    Filter(node_ids=frozenset({ALICE})),
    Filter(types=(range(3),)),
    Filter(frozenset({BOB}), (range(2),), frozenset({Kind.MESSAGE})),
)


@dataclass
class Subscriber:
    """A subscription, and what it has given."""

    subscription: Subscription
    wanted: Filter
    start: int
    events: list[Event] = field(default_factory=list)
    expired: PositionExpired | None = None


@dataclass(frozen=True)
class Append:
    count: int
    seed: int


@dataclass(frozen=True)
class Publish:
    """The loop hears of what was committed."""


@dataclass(frozen=True)
class Prune:
    count: int
    is_heard_of: bool


@dataclass(frozen=True)
class Subscribe:
    filter_index: int
    start: Start | int


@dataclass(frozen=True)
class Read:
    subscriber: int
    meanwhile: Append | Prune | Publish | None
    """What happens while it waits for the store."""


appends = st.builds(Append, st.integers(1, 12), st.integers(0, 99))
prunes = st.builds(Prune, st.integers(1, 20), st.booleans())
publishes = st.just(Publish())
starts = st.sampled_from(Start) | st.integers(0, 40)
subscribes = st.builds(Subscribe, st.integers(0, len(FILTERS) - 1), starts)
reads = st.builds(Read, st.integers(0, 5), st.none() | appends | prunes | publishes)
Operation = Append | Publish | Prune | Subscribe | Read


class World:
    """A feed over a store, where everything happens when the test says so."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.feed = Feed(self.read, 5 * 410, heartbeat=0)
        self.feed.open(self.store.range())
        self.committed: list[Event] = []
        self.unheard: list[list[Event]] = []
        self.subscribers: list[Subscriber] = []
        self.meanwhile: Append | Prune | Publish | None = None

    async def read(self, after: int, limit: int, max_size: int) -> list[Event]:
        if self.meanwhile is not None:
            await self.do(self.meanwhile)
        return self.store.read(after, min(limit, 4), max_size)

    async def do(self, operation: Operation) -> None:
        match operation:
            case Append(count, seed):
                some = random.Random(seed)
                events = self.store.append(
                    [
                        arrival(
                            kind=some.choice([Kind.MESSAGE, Kind.MESSAGE, Kind.CONNECTED, Kind.INTERRUPTION]),
                            node_id=some.choice([ALICE, BOB]),
                            message_type=some.randrange(5),
                            size=some.choice([10, 10, 800]),
                        )
                        for _ in range(count)
                    ]
                )
                self.committed += events
                self.unheard.append(events)
            case Publish():
                if self.unheard:
                    self.feed.publish(self.unheard.pop(0))
            case Prune(count, is_heard_of):
                self.store.prune(Retention(0, 0), 10, count)
                # The writer reports in order: nothing is heard of before what was committed earlier.
                if is_heard_of and not self.unheard:
                    self.feed.forget(self.store.range().earliest)
            case Subscribe(filter_index, start):
                self.subscribe(FILTERS[filter_index], start)
            case Read(number, meanwhile):
                if self.subscribers:
                    self.meanwhile = meanwhile
                    await self.advance(self.subscribers[number % len(self.subscribers)])
                    self.meanwhile = None

    def subscribe(self, wanted: Filter, start: Start | int) -> None:
        if isinstance(start, int) and start + 1 < self.feed.earliest:
            with pytest.raises(PositionExpired):
                self.feed.subscribe(wanted, start)
        elif isinstance(start, int) and start > self.feed.latest:
            with pytest.raises(PositionUnknown):
                self.feed.subscribe(wanted, start)
        else:
            subscription = self.feed.subscribe(wanted, start)
            self.subscribers.append(Subscriber(subscription, wanted, subscription.position))

    async def advance(self, subscriber: Subscriber) -> None:
        try:
            batch = await anext(subscriber.subscription)
        except PositionExpired as error:
            subscriber.expired = error
        else:
            assert subscriber.expired is None, "what has expired does not come back"
            assert batch.position == subscriber.subscription.position <= self.feed.latest
            subscriber.events += batch.events

    async def finish(self) -> None:
        while self.unheard:
            await self.do(Publish())
        earliest = self.store.range().earliest
        for subscriber in self.subscribers:
            while subscriber.expired is None and subscriber.subscription.position < self.feed.latest:
                await self.advance(subscriber)
            position = subscriber.subscription.position
            if subscriber.expired is not None:
                assert position + 1 < subscriber.expired.earliest <= earliest
            assert subscriber.events == [
                event
                for event in self.committed
                if subscriber.start < event.sequence <= position and subscriber.wanted.passes(event.arrival)
            ]
        self.store.close()


@given(st.lists(appends | publishes | publishes | prunes | subscribes | reads | reads, max_size=60))
def test_each_subscriber_sees_everything_once_in_order(operations: list[Operation]) -> None:
    """What was committed after its start and passes its filter, and none twice, or PositionExpired."""

    async def run(path: Path) -> None:
        world = World(path)
        for operation in operations:
            await world.do(operation)
        await world.finish()

    with fast_directory() as directory:
        asyncio.run(run(directory / "inbox.db"))


@pytest.mark.parametrize("seed", range(4))
async def test_subscribers_of_any_speed_see_everything_while_old_is_forgotten(seed: int) -> None:
    """With all threads running: who keeps up sees everything, who does not is told."""
    some = random.Random(seed)
    total = 3000
    with fast_directory() as directory:
        retention = Retention(1e11, 150_000)
        async with Inbox(lambda: SqliteStore(directory / "inbox.db"), retention) as inbox:

            async def subscribe(turns: int) -> bool:
                """Read with `turns` turns of the loop after each batch; return whether all was seen."""
                subscription = inbox.subscribe(Filter())
                expected = subscription.position + 1
                async for batch in subscription:
                    for event in batch.events:
                        assert event.sequence == expected
                        expected += 1
                    if batch.position == total:
                        return True
                    for _ in range(turns):
                        await asyncio.sleep(0)
                return False

            subscribers = [asyncio.create_task(subscribe(turns)) for turns in (0, 0, 1, 50, 1000)]
            await asyncio.sleep(0)
            for _ in range(total // 10):
                await inbox.has_room()
                is_stored = inbox.append([arrival(size=some.choice([10, 500, 5000])) for _ in range(10)])
                if some.random() < 0.5:
                    await is_stored
            outcomes = await asyncio.gather(*subscribers, return_exceptions=True)
            assert all(outcome is True or isinstance(outcome, PositionExpired) for outcome in outcomes), (
                outcomes
            )
            assert outcomes[0] is True
            assert inbox.earliest > 1
