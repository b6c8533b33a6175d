"""Feeds subscribers: what was kept and what is new, without a gap between the two.

A subscription is no more than a position. What was committed last is in memory, shared by all of them; one
that is further behind reads the store. So a slow subscriber costs little and stops nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, Range, StoreError
from custommsg_server.inbox.position import PositionExpired, PositionUnknown, Start

CHUNK_EVENTS: Final = 500
"""Events that a subscription takes at once, at most."""
CHUNK_SIZE: Final = 1 << 20
"""Bytes of messages that it takes at once, at most, if that is not a single one."""
EVENT_OVERHEAD: Final = 400
"""Bytes of memory that an event takes beside its message, about."""
_PASSED_OVER: Final = 5000
"""Events that nobody wants after which a subscription says where it is, at the latest."""

Read = Callable[[int, int, int], Awaitable[list[Event]]]
"""Reads the store, as `Store.read`: after, limit, max_size."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a subscription has for its subscriber."""

    events: list[Event]
    """The events that pass its filter, in order; none if this only says where it is."""
    position: int
    """How far it has come: every event up to this sequence number was given out or not wanted."""


class Feed:
    """What was committed last, and who waits for more. For the event loop's thread only.

    Args:
        read: reads the store for subscribers that are behind.
        recent_size: bytes of memory for what was committed last.
        heartbeat: seconds after which a subscription says where it is, if it has nothing else to say.
    """

    def __init__(self, read: Read, recent_size: int, heartbeat: float) -> None:
        self._read = read
        self._recent_size = recent_size
        self._room = recent_size
        self._heartbeat = heartbeat
        self._recent: dict[int, Event] = {}
        self._first_recent = 1
        self._earliest = 1
        self._latest = 0
        self._is_open = False
        self._is_closed = False
        self._news = asyncio.Event()

    @property
    def earliest(self) -> int:
        """The sequence number of the oldest event that is kept; `latest + 1` if none is."""
        return self._earliest

    @property
    def latest(self) -> int:
        """The sequence number of the newest event that was committed; 0 if there never was one."""
        return self._latest

    @property
    def is_closed(self) -> bool:
        """Whether subscriptions end."""
        return self._is_closed

    def open(self, held: Range) -> None:
        """Begin with what the store holds."""
        self._earliest, self._latest, self._first_recent = held.earliest, held.latest, held.latest + 1
        self._is_open = True

    def publish(self, events: Sequence[Event]) -> None:
        """Give out events that have just been committed."""
        if not events:
            return
        if events[0].sequence != self._latest + 1:  # a commit that failed, it seemed, has succeeded after all
            self._recent.clear()
            self._room, self._first_recent = self._recent_size, events[0].sequence
        for event in events:
            self._recent[event.sequence] = event
            self._room -= len(event.arrival.message) + EVENT_OVERHEAD
        self._latest = events[-1].sequence
        while self._room < 0:
            event = self._recent.pop(self._first_recent)
            self._room += len(event.arrival.message) + EVENT_OVERHEAD
            self._first_recent += 1
        self._wake()

    def forget(self, earliest: int) -> None:
        """Take note that the store keeps nothing from before `earliest`."""
        self._earliest = earliest

    def close(self) -> None:
        """End all subscriptions."""
        self._is_closed = True
        self._wake()

    def subscribe(self, wanted: Filter, start: Start | int = Start.LIVE) -> Subscription:
        """Subscribe; the subscription's position is where it starts, fixed from now on.

        Args:
            wanted: which events to give out.
            start: where to start, or the sequence number after which to start.

        Raises:
            PositionExpired: what comes after `start` is no longer kept.
            PositionUnknown: `start` is beyond the newest event.
            StoreError: the inbox could not be opened yet.
        """
        if not self._is_open:
            raise StoreError("the inbox could not be opened yet")
        match start:
            case Start.LIVE:
                position = self._latest
            case Start.BEGINNING:
                position = self._earliest - 1
            case int(position):
                if position < self._earliest - 1:
                    raise PositionExpired(self._earliest, self._latest)
                if position > self._latest:
                    raise PositionUnknown(self._earliest, self._latest)
        return Subscription(self, wanted, position, self._heartbeat)

    async def after(self, position: int) -> list[Event]:
        """Return some of the events after `position`, which is before the newest.

        Raises:
            PositionExpired: the next one is no longer kept.
            StoreError: the store cannot be read now.
        """
        limit = min(CHUNK_EVENTS, self._latest - position)
        if position + 1 >= self._first_recent:
            return self._recent_after(position, limit)
        events = await self._read(position, limit, CHUNK_SIZE)
        first = events[0].sequence if events else self._latest + 1
        if first != position + 1:
            raise PositionExpired(first, self._latest)
        return events

    async def news(self) -> None:
        """Wait until something is committed."""
        await self._news.wait()

    def _recent_after(self, position: int, limit: int) -> list[Event]:
        # No copies, but whoever holds them keeps them in memory when they are recent no more.
        events: list[Event] = []
        room = CHUNK_SIZE
        for sequence in range(position + 1, position + 1 + limit):
            event = self._recent[sequence]
            room -= len(event.arrival.message)
            if room < 0 and events:
                break
            events.append(event)
        return events

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()


class Subscription:
    """An endless iterator of batches; made by `Feed.subscribe`.

    It is safe to cancel while it waits, and to go on with it: its position moves only with a batch given out.
    It ends when the feed is closed.
    """

    def __init__(self, feed: Feed, wanted: Filter, position: int, heartbeat: float) -> None:
        self._feed = feed
        self._wanted = wanted
        self._position = position
        self._heartbeat = heartbeat

    @property
    def position(self) -> int:
        """How far it has come: where it started, then the position of the last batch."""
        return self._position

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Batch:
        """Wait for the next batch.

        Raises:
            PositionExpired: retention has overtaken the subscriber.
            StoreError: the store cannot be read now.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._heartbeat
        position = self._position
        while not self._feed.is_closed:
            if position >= self._feed.latest:
                try:
                    async with asyncio.timeout_at(due):
                        await self._feed.news()
                    continue
                except TimeoutError:
                    return self._give([], position)
            chunk = await self._feed.after(position)
            position = chunk[-1].sequence
            events = [event for event in chunk if self._wanted.passes(event.arrival)]
            if events or position - self._position >= _PASSED_OVER or loop.time() >= due:
                return self._give(events, position)
        raise StopAsyncIteration

    def _give(self, events: list[Event], position: int) -> Batch:
        self._position = position
        return Batch(events, position)
