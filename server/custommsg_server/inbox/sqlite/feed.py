"""Feeds subscribers with stored and new events, without a gap between them.

The newest events are in memory, shared by all subscriptions; a subscription that is further behind reads from the
file. So a slow subscriber takes little memory and delays nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Batch,
    Event,
    InboxError,
    Position,
    PositionExpired,
    PositionNotReached,
    Start,
)
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import Chunk, Held
from custommsg_server.inbox.sqlite.retention import Evicted
from custommsg_server.inbox.sqlite.store import Stored

CHUNK_EVENTS: Final = 500
"""The maximum number of events in one batch."""
CHUNK_SIZE: Final = 1 << 18
"""The maximum size of its messages in bytes; a single larger message is a batch of its own."""
EVENT_OVERHEAD: Final = 500
"""The approximate memory of an event in bytes, without its message."""
_PASSED_OVER: Final = 5000
"""The number of events that do not match the filter after which a subscription reports its position."""

Read = Callable[[Filter, int, int, int, int], Awaitable[Chunk]]
"""Reads the store, as `SqliteStore.read`: wanted, after, until, limit, max_size."""


class Feed:
    """The newest events in memory, and the subscriptions. For the event loop's thread only.

    Args:
        read: reads the file, for subscribers that are behind.
        recent_size: bytes of memory for the newest events.
        heartbeat: seconds without events after which a subscription reports its position.
    """

    def __init__(self, read: Read, recent_size: int, heartbeat: float) -> None:
        self._read = read
        self._recent_size = recent_size
        self._room = recent_size
        self._heartbeat = heartbeat
        self._recent: dict[int, Event] = {}
        self._first_recent = 1
        self._floor = 0
        self._latest = 0
        self._positions: Positions | None = None
        self._is_closed = False
        self._news = asyncio.Event()

    @property
    def floor(self) -> int:
        """The highest sequence number that the retention has deleted."""
        return self._floor

    @property
    def latest(self) -> int:
        """The sequence number of the newest event; 0 if there never was one."""
        return self._latest

    @property
    def is_closed(self) -> bool:
        """Whether subscriptions end."""
        return self._is_closed

    @property
    def positions(self) -> Positions:
        """Turns sequence numbers into positions, and back.

        Raises:
            InboxError: the inbox could not be opened yet.
        """
        if self._positions is None:
            raise InboxError("the inbox could not be opened yet")
        return self._positions

    def open(self, positions: Positions, held: Held) -> None:
        """Start with the content of the file."""
        self._positions = positions
        self._floor, self._latest, self._first_recent = held.floor, held.latest, held.latest + 1

    def publish(self, stored: Stored) -> None:
        """Pass on events that have just been committed."""
        if not stored.events:
            return
        if stored.first != self._latest + 1:  # a commit that seemed to fail took effect
            self._recent.clear()
            self._room, self._first_recent = self._recent_size, stored.first
        recent, room = self._recent, self._room
        for sequence, event in enumerate(stored.events, stored.first):
            recent[sequence] = event
            room -= len(event.arrival.message) + EVENT_OVERHEAD
        self._latest = stored.first + len(stored.events) - 1
        while room < 0:
            if (oldest := recent.pop(self._first_recent, None)) is not None:
                room += len(oldest.arrival.message) + EVENT_OVERHEAD
            self._first_recent += 1
        self._room = room
        self.wake()

    def evict(self, evicted: Evicted) -> None:
        """Remove events that were deleted; an interruption replaces the last of them."""
        for sequence in evicted.sequences:
            if (gone := self._recent.pop(sequence, None)) is not None:
                self._room += len(gone.arrival.message) + EVENT_OVERHEAD
        last = evicted.sequences[-1]
        if last >= self._first_recent:
            self._recent[last] = evicted.interruption
            self._room -= EVENT_OVERHEAD

    def forget(self, floor: int) -> None:
        """Record that the retention has deleted all events up to `floor`."""
        self._floor = floor

    def close(self) -> None:
        """End all subscriptions."""
        self._is_closed = True
        self.wake()

    def wake(self) -> None:
        """Wake all waiting subscriptions."""
        self._news.set()
        self._news.clear()

    def reached(self, position: Position) -> int:
        """Return the sequence number of a position that is not after the newest event.

        Raises:
            PositionInvalid, PositionOfOtherInbox, PositionNotReached: it cannot be used.
            InboxError: the inbox could not be opened yet.
        """
        sequence = self.positions.sequence(position)
        if sequence > self._latest:
            raise PositionNotReached(self.positions.of(self._latest))
        return sequence

    def place(self, start: Start | Position) -> int:
        """Return the sequence number after which to start.

        Raises:
            PositionError: it is not possible to start there.
            InboxError: the inbox could not be opened yet.
        """
        positions = self.positions
        if start is Start.LIVE:
            return self._latest
        if start is Start.BEGINNING:
            return self._floor
        sequence = self.reached(start)
        if sequence < self._floor:
            raise PositionExpired(positions.of(self._floor))
        return sequence

    def subscribe(self, wanted: Filter, start: Start | Position) -> FeedSubscription:
        """Subscribe; the start is fixed from now on.

        Raises:
            PositionError: it is not possible to start there.
            InboxError: the inbox could not be opened yet.
        """
        return FeedSubscription(self, wanted, self.place(start), self._heartbeat)

    async def after(
        self, wanted: Filter, place: int, limit: int = CHUNK_EVENTS, max_size: int = CHUNK_SIZE
    ) -> tuple[list[Event], int]:
        """Return some of the events after a place that match a filter, and the place that they reach.

        Raises:
            PositionExpired: events after the place were deleted.
            InboxError: the file cannot be read now.
        """
        if place + 1 >= self._first_recent:
            return self._recent_after(wanted, place, limit, max_size)
        chunk = await self._read(wanted, place, self._latest, limit, max_size)
        if chunk.floor > place:
            raise PositionExpired(self.positions.of(chunk.floor))
        return chunk.events, chunk.end

    async def news(self) -> None:
        """Wait for the next commit."""
        await self._news.wait()

    def _recent_after(self, wanted: Filter, place: int, limit: int, max_size: int) -> tuple[list[Event], int]:
        # No copies: a subscriber that has them keeps them in memory after they left the feed.
        events: list[Event] = []
        recent, passes = self._recent, wanted.passes
        end = min(self._latest, place + CHUNK_EVENTS)
        for sequence in range(place + 1, end + 1):
            event = recent.get(sequence)  # None: it was evicted
            if event is not None and passes(event.arrival):
                size = len(event.arrival.message)
                if size > max_size and events:
                    return events, sequence - 1
                max_size -= size
                events.append(event)
                if len(events) == limit:
                    return events, sequence
        return events, end


class FeedSubscription:
    """Implements `inbox.port.Subscription`. Its place moves only when it returns a batch."""

    def __init__(self, feed: Feed, wanted: Filter, place: int, heartbeat: float) -> None:
        self._feed = feed
        self._positions = feed.positions
        self._wanted = wanted
        self._place = place
        self._heartbeat = heartbeat
        self._is_closed = False

    @property
    def position(self) -> Position:
        """Where it started, then the position of the last batch."""
        return self._positions.of(self._place)

    def __aiter__(self) -> FeedSubscription:
        return self

    async def __anext__(self) -> Batch:
        """Wait for the next batch.

        Raises:
            PositionExpired: the retention has deleted events that were not read yet.
            InboxError: the file cannot be read now.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._heartbeat
        feed, place = self._feed, self._place
        while not (feed.is_closed or self._is_closed):
            if place >= feed.latest:
                try:
                    async with asyncio.timeout_at(due):
                        await feed.news()
                    continue
                except TimeoutError:
                    return self._give([], place)
            events, place = await feed.after(self._wanted, place)
            if events or place - self._place >= _PASSED_OVER or loop.time() >= due:
                return self._give(events, place)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it."""
        self._is_closed = True
        self._feed.wake()

    def _give(self, events: list[Event], place: int) -> Batch:
        self._place = place
        return Batch(events, self._positions.of(place))
