"""Random sequences of operations on an inbox, compared with a model of the port, for every engine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, Inbox, Position, PositionExpired, Start, Subscription
from support.engines import Engine
from support.inboxes import ALICE, BOB, EVERYTHING, arrival, fast_directory, nameless

from .conftest import ENGINES

FILTERS = (
    EVERYTHING,
    Filter(),
    Filter(peer_ids=frozenset({ALICE}), peer_events=True),
    Filter(types=TypeSet([range(2)])),
    Filter(frozenset({BOB}), TypeSet([range(1, 3)])),
)


@dataclass(frozen=True)
class Append:
    """Concurrent appends of several arrivals each."""

    calls: list[list[Arrival]]
    is_by_other: bool


@dataclass(frozen=True)
class Subscribe:
    filter_index: int
    start: Start | int


@dataclass(frozen=True)
class Read:
    subscriber: int


@dataclass(frozen=True)
class Page:
    filter_index: int
    after: int | None
    limit: int


@dataclass(frozen=True)
class DeleteOldest:
    count: int


@dataclass(frozen=True)
class DeleteOne:
    number: int


@dataclass(frozen=True)
class Open:
    name: str
    start: Start | int


@dataclass(frozen=True)
class Ack:
    name: str
    position: int


@dataclass(frozen=True)
class DeleteConsumer:
    name: str


@dataclass(frozen=True)
class Restart:
    pass


arrivals = st.builds(
    arrival,
    st.integers(0, 9),
    kind=st.sampled_from([Kind.MESSAGE, Kind.MESSAGE, Kind.CONNECTED, Kind.INTERRUPTION]),
    peer_id=st.sampled_from([ALICE, BOB]),
    message_type=st.integers(0, 3),
    name=st.sampled_from(["", "", "", "a", "b", "c"]),
)
starts = st.sampled_from(Start) | st.integers(0, 50)
names = st.sampled_from(["x", "y"])
filter_indexes = st.integers(0, len(FILTERS) - 1)
appends = st.builds(Append, st.lists(st.lists(arrivals, max_size=9), min_size=1, max_size=3), st.booleans())
operations = st.one_of(
    appends,
    appends,
    st.builds(Subscribe, filter_indexes, starts),
    st.builds(Read, st.integers(0, 9)),
    st.builds(Read, st.integers(0, 9)),
    st.builds(Page, filter_indexes, st.none() | st.integers(0, 50), st.integers(1, 20)),
    st.builds(DeleteOldest, st.integers(1, 10)),
    st.builds(DeleteOne, st.integers(0, 50)),
    st.builds(Open, names, starts),
    st.builds(Ack, names, st.integers(0, 50)),
    st.builds(DeleteConsumer, names),
    st.just(Restart()),
)


@dataclass
class Subscriber:
    """A subscription, its start, and the events that it has returned."""

    subscription: Subscription
    wanted: Filter
    start: int
    events: list[Event] = field(default_factory=list)
    is_expired: bool = False


class World:
    """An inbox and its expected content. Places are indexes: 0 is before the first event, n is the n-th event."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.subscribers: list[Subscriber] = []
        self.events: list[Event] = []
        self.positions: list[Position] = []
        self.floor = 0
        self.deleted: set[Position] = set()
        self.ids: dict[str, Position] = {}
        self.consumers: dict[str, int] = {}

    async def open(self) -> None:
        self.inbox: Inbox = await self.engine.open(heartbeat=0)
        if not self.positions:
            self.positions.append((await self.inbox.bounds()).latest)

    def start(self, start: Start | int) -> tuple[Start | Position, int]:
        """Return a start for the port, and its place."""
        if start is Start.LIVE:
            return start, len(self.events)
        if start is Start.BEGINNING:
            return start, self.floor
        place = min(start, len(self.events))
        return self.positions[place], place

    def kept(self, wanted: Filter, after: int, until: int) -> list[Event]:
        """Return the events that match a filter, without single deleted ones."""
        return [
            event
            for event in self.events[after:until]
            if wanted.passes(event.arrival) and event.position not in self.deleted
        ]

    def check(self, got: list[Event], wanted: Filter, after: int, until: int) -> None:
        """Check that events were returned once and in order; a single deleted one may be among them."""
        given = [Event(event.position, nameless(event.arrival)) for event in got]
        assert [event for event in given if event.position not in self.deleted] == self.kept(
            wanted, after, until
        )
        places = [self.positions.index(event.position) for event in got]
        assert places == sorted(set(places))
        assert all(
            after < place <= until and wanted.passes(self.events[place - 1].arrival) for place in places
        )

    async def do(self, operation: object) -> None:
        match operation:
            case Append(calls, is_by_other):
                await self.append(calls, is_by_other)
            case Subscribe(index, start):
                await self.subscribe(FILTERS[index], start)
            case Read(number):
                if self.subscribers:
                    await self.read(self.subscribers[number % len(self.subscribers)])
            case Page(index, after, limit):
                await self.page(FILTERS[index], after, limit)
            case DeleteOldest(count):
                kept = [event for event in self.events[self.floor :] if event.position not in self.deleted]
                count = min(count, len(kept))
                if count:
                    await self.engine.delete_oldest(count)
                    self.floor = self.positions.index(kept[count - 1].position)
            case DeleteOne(number):
                if self.events:
                    position = self.events[number % len(self.events)].position
                    await self.engine.delete(position)
                    self.deleted.add(position)
            case Open(name, start):
                await self.open_consumer(name, start)
            case Ack(name, number):
                place = min(number, len(self.events))
                now = await self.inbox.consumers.ack(name, self.positions[place])
                if name in self.consumers:
                    self.consumers[name] = max(self.consumers[name], place)
                assert now == (self.positions[self.consumers[name]] if name in self.consumers else None)
            case DeleteConsumer(name):
                assert await self.inbox.consumers.delete(name) == (name in self.consumers)
                self.consumers.pop(name, None)
            case Restart():
                await self.inbox.close()
                for subscriber in self.subscribers:
                    assert [batch async for batch in subscriber.subscription] == []
                self.subscribers.clear()
                self.ids.clear()  # an engine need not remember them over a restart
                await self.open()

    async def append(self, calls: list[list[Arrival]], is_by_other: bool) -> None:
        inbox = self.inbox
        if is_by_other and self.engine.has_second_writer:
            inbox = await self.engine.second_writer()
        some = await asyncio.gather(*[inbox.append(one) for one in calls])
        for appended, positions in zip(calls, some, strict=True):
            assert len(appended) == len(positions)
            for one, position in zip(appended, positions, strict=True):
                if one.id and one.id in self.ids:
                    assert position == self.ids[one.id]
                elif position not in self.positions:
                    self.positions.append(position)
                    self.events.append(Event(position, nameless(one)))
                    if one.id:
                        self.ids[one.id] = position
                else:
                    assert one.id, "only what has an id may be at a place that is taken"
                    self.ids[one.id] = position

    async def subscribe(self, wanted: Filter, start: Start | int) -> None:
        where, place = self.start(start)
        try:
            subscription = await self.inbox.subscribe(wanted, where)
        except PositionExpired as error:
            assert place < self.floor
            assert error.earliest == self.positions[self.floor]
        else:
            assert place >= self.floor
            assert subscription.position == self.positions[place]
            self.subscribers.append(Subscriber(subscription, wanted, place))

    async def read(self, subscriber: Subscriber) -> None:
        subscription = subscriber.subscription
        before = self.positions.index(subscription.position)
        try:
            batch = await anext(subscription)
        except PositionExpired as error:
            subscriber.is_expired = True
            assert before < self.floor
            assert subscription.position == self.positions[before]
            assert error.earliest == self.positions[self.floor]
        else:
            assert not subscriber.is_expired, "what has expired does not come back"
            assert batch.position == subscription.position
            self.check(batch.events, subscriber.wanted, before, self.positions.index(batch.position))  # type: ignore[arg-type]
            subscriber.events += batch.events

    async def page(self, wanted: Filter, after: int | None, limit: int) -> None:
        where, place = (None, self.floor) if after is None else self.start(after)
        try:
            batch = await self.inbox.read(wanted, where, limit)  # type: ignore[arg-type]
        except PositionExpired:
            assert place < self.floor
            return
        until = self.positions.index(batch.position)
        assert place >= self.floor
        assert len(batch.events) <= limit
        assert not batch.is_last or until == len(self.events)
        self.check(list(batch.events), wanted, place, until)

    async def open_consumer(self, name: str, start: Start | int) -> None:
        where, place = self.start(start)
        try:
            position = await self.inbox.consumers.open(name, where)
        except PositionExpired:
            assert name not in self.consumers
            assert place < self.floor
        else:
            assert name in self.consumers or place >= self.floor
            self.consumers.setdefault(name, place)
            assert position == self.positions[self.consumers[name]]

    async def finish(self) -> None:
        """Read everything to its end."""
        for subscriber in self.subscribers:
            while not subscriber.is_expired and subscriber.subscription.position != self.positions[-1]:
                await self.read(subscriber)
            if not subscriber.is_expired:
                self.check(subscriber.events, subscriber.wanted, subscriber.start, len(self.events))
        bounds = await self.inbox.bounds()
        assert (bounds.earliest, bounds.latest) == (self.positions[self.floor], self.positions[-1])
        listed = await self.inbox.consumers.list()
        assert [(one.name, one.position, one.is_expired) for one in listed] == [
            (name, self.positions[place], place < self.floor)
            for name, place in sorted(self.consumers.items())
        ]


@pytest.mark.parametrize("kind", ENGINES)
@given(steps=st.lists(operations, max_size=40))
@settings(max_examples=60)
def test_whatever_is_done_the_promises_hold(kind: type[Engine], steps: list[object]) -> None:
    """Order, completeness, ids, positions, consumers: over appends, deletions and restarts in any order."""

    async def run() -> None:
        with fast_directory() as folder:
            async with AsyncExitStack() as stack:
                world = World(kind(folder, stack))
                await world.open()
                for step in steps:
                    await world.do(step)
                await world.finish()

    asyncio.run(run())
