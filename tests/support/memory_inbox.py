"""An inbox in memory, as different from SQLite as the port allows: gaps between its places, and several writers."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Batch,
    Bounds,
    Consumer,
    Event,
    InboxError,
    Position,
    PositionExpired,
    PositionInvalid,
    PositionNotReached,
    PositionOfOtherInbox,
    Start,
)

_CHUNK = 7
"""Events in a batch, at most."""
_PASSED_OVER = 100


@dataclass
class Log:
    """What several inboxes share: what a server would keep."""

    name: str
    gaps: random.Random = field(default_factory=lambda: random.Random(1))
    events: list[tuple[int, Event]] = field(default_factory=list)
    latest: int = 0
    floor: int = 0
    ids: dict[str, Position] = field(default_factory=dict)
    consumers: dict[str, tuple[int, int]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    fails: str | None = None

    def position(self, place: int) -> Position:
        """Return the position of a place."""
        return Position(f"@{place:x}/{self.name}")

    def place(self, position: Position) -> int:
        """Read a position that is not after the newest event."""
        try:
            place, _, name = position.removeprefix("@").partition("/")
            number = int(place, 16)
        except ValueError:
            raise PositionInvalid("not a position") from None
        if self.position(number).partition("/")[0] != position.partition("/")[0] or not name:
            raise PositionInvalid("not a position")
        if name != self.name:
            raise PositionOfOtherInbox("of another inbox")
        if number > self.latest:
            raise PositionNotReached(self.position(self.latest))
        return number

    def start(self, start: Start | Position) -> int:
        """Return the place after which to start."""
        if isinstance(start, Start):
            return self.latest if start is Start.LIVE else self.floor
        place = self.place(start)
        if place < self.floor:
            raise PositionExpired(self.position(self.floor))
        return place

    def add(self, arrivals: Sequence[Arrival]) -> list[Position]:
        """Store arrivals, those that are known aside."""
        positions = []
        for arrival in arrivals:
            position = self.ids.get(arrival.id) if arrival.id else None
            if position is None:
                self.latest += self.gaps.randrange(1, 5)
                position = self.position(self.latest)
                self.events.append((self.latest, Event(position, arrival)))
                if arrival.id:
                    self.ids[arrival.id] = position
            positions.append(position)
        self.wake()
        return positions

    def after(self, place: int) -> list[tuple[int, Event]]:
        """Return all events after a place."""
        return self.events[bisect_right(self.events, place, key=lambda one: one[0]) :]

    def delete_oldest(self, count: int) -> None:
        """Delete what a retention would."""
        gone = self.events[:count]
        del self.events[:count]
        if gone:
            self.floor = gone[-1][0]

    def delete(self, position: Position) -> None:
        """Delete one event, as the budget of a peer would."""
        self.events = [one for one in self.events if one[1].position != position]

    def wake(self) -> None:
        """Have all who wait look again."""
        self.changed.set()
        self.changed.clear()


class MemoryInbox:
    """One writer and reader of a log. Implements `inbox.port.Inbox`."""

    def __init__(self, log: Log, heartbeat: float = 15.0) -> None:
        self.log = log
        self.heartbeat = heartbeat
        self.is_closed = False
        self._consumers = MemoryConsumers(self)
        self._waiting: list[tuple[Sequence[Arrival], asyncio.Future[Sequence[Position]]]] = []
        self._lost: list[Arrival] = []
        self._error: str | None = None
        self._watchers: list[Callable[[str | None], None]] = []

    @property
    def consumers(self) -> MemoryConsumers:
        return self._consumers

    @property
    def error(self) -> str | None:
        return self._error

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        self._watchers.append(watcher)
        watcher(self._error)

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[Sequence[Position]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Position]] = loop.create_future()
        if self.is_closed:
            future.set_exception(InboxError("the inbox is closed"))
            future.exception()
        else:
            self._waiting.append((arrivals, future))
            loop.call_soon(self.commit)
        return future

    def commit(self) -> None:
        """Store what waits, or lose it."""
        waiting, self._waiting = self._waiting, []
        fails = self.log.fails
        if fails is None and self._lost:
            lost = sum(one.kind is Kind.MESSAGE for one in self._lost)
            self.log.add([Arrival(Kind.INTERRUPTION, 1, lost=lost)])
            self._lost = []
        for arrivals, future in waiting:
            if fails is None:
                positions = self.log.add(arrivals)
                if not future.done():
                    future.set_result(positions)
            else:
                self._lost += arrivals
                if not future.done():
                    future.set_exception(InboxError(fails))
                    future.exception()
        if fails != self._error:
            self._error = fails
            for watcher in self._watchers:
                watcher(fails)

    async def subscribe(self, wanted: Filter, start: Start | Position) -> MemorySubscription:
        self.check()
        return MemorySubscription(self, wanted, self.log.start(start))

    async def read(self, wanted: Filter, after: Position | None, limit: int) -> Batch:
        self.check()
        place = self.log.start(Start.BEGINNING if after is None else after)
        found = []
        for at, event in self.log.after(place):
            if len(found) == limit:
                return Batch(found, self.log.position(place))
            place = at
            if wanted.passes(event.arrival):
                found.append(event)
        return Batch(found, self.log.position(self.log.latest), is_last=True)

    async def bounds(self) -> Bounds:
        self.check()
        events = [event for _, event in self.log.events]
        return Bounds(
            self.log.position(self.log.floor),
            self.log.position(self.log.latest),
            len(events),
            sum(len(event.arrival.message) for event in events),
            events[0].arrival.time_ns if events else 0,
        )

    def keep_more_of(self, peer_ids: Collection[bytes]) -> None:
        """Do nothing: this engine keeps everything."""

    async def close(self) -> None:
        self.commit()
        self.is_closed = True
        self.log.wake()

    def check(self) -> None:
        """Refuse to be used any more."""
        if self.is_closed:
            raise InboxError("the inbox is closed")


class MemorySubscription:
    """Implements `inbox.port.Subscription`."""

    def __init__(self, inbox: MemoryInbox, wanted: Filter, place: int) -> None:
        self._inbox = inbox
        self._wanted = wanted
        self._place = place
        self._is_closed = False

    @property
    def position(self) -> Position:
        return self._inbox.log.position(self._place)

    def __aiter__(self) -> MemorySubscription:
        return self

    async def __anext__(self) -> Batch:
        log, loop = self._inbox.log, asyncio.get_running_loop()
        due = loop.time() + self._inbox.heartbeat
        place = self._place
        while not (self._is_closed or self._inbox.is_closed):
            if place < log.floor:
                raise PositionExpired(log.position(log.floor))
            some = log.after(place)[:_PASSED_OVER]
            found = [one for one in some if self._wanted.passes(one[1].arrival)][:_CHUNK]
            end = some[-1][0] if len(some) == _PASSED_OVER else log.latest
            place = found[-1][0] if found else end
            if found or len(some) == _PASSED_OVER or loop.time() >= due:
                self._place = place
                return Batch([event for _, event in found], self.position)
            try:
                async with asyncio.timeout_at(due):
                    await log.changed.wait()
            except TimeoutError:
                pass
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._is_closed = True
        self._inbox.log.wake()


class MemoryConsumers:
    """Implements `inbox.port.Consumers`."""

    def __init__(self, inbox: MemoryInbox) -> None:
        self._inbox = inbox
        self._log = inbox.log

    async def open(self, name: str, start: Start | Position) -> Position:
        self._inbox.check()
        if name not in self._log.consumers:
            self._log.consumers[name] = (self._log.start(start), 1)
        return self._log.position(self._log.consumers[name][0])

    async def ack(self, name: str, position: Position) -> Position | None:
        self._inbox.check()
        place = self._log.place(position)
        if name not in self._log.consumers:
            return None
        place = max(place, self._log.consumers[name][0])
        self._log.consumers[name] = (place, 2)
        return self._log.position(place)

    async def list(self) -> list[Consumer]:
        self._inbox.check()
        return [
            Consumer(
                name, self._log.position(place), time, len(self._log.after(place)), place < self._log.floor
            )
            for name, (place, time) in sorted(self._log.consumers.items())
        ]

    async def delete(self, name: str) -> bool:
        self._inbox.check()
        return self._log.consumers.pop(name, None) is not None
