"""Feeds subscribers with stored and new events, without a gap between them.

The newest events are in memory, shared by all subscriptions; a subscription that is further behind reads from the
file. So a slow subscriber takes little memory and delays nobody. Subscriptions with equal filters and positions share
their next batch.

Subscribers get their batches in turn, a few at once, so that the event loop can handle hook calls in between. A round
takes longer with more subscribers; then there are fewer and larger batches. There are no turns while the writer's
thread needs Python's global lock, since lightningd waits for the commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakValueDictionary

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

_AT_ONCE: Final = 8
"""The number of subscriptions that have their turn at once."""
_MAX_HOLD: Final = 0.01
"""Seconds after which turns go on although the writer's thread has not finished: by then it waits for the disk."""

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
        self._up_to_date: set[asyncio.Future[None]] = set()
        """Subscriptions that wait for new events."""
        self._next: deque[asyncio.Future[None]] = deque()
        """Subscriptions that wait for their turn, since there are new events."""
        self._held_until = 0.0
        self._turning: asyncio.Handle | None = None
        self._batches: WeakValueDictionary[tuple[Filter, int], Batch] = WeakValueDictionary()
        """The events that match a filter, from a place to the newest, while a subscriber holds them."""
        self._nothing: Batch | None = None
        """The one of these without events: no subscriber holds it, so it would be searched again."""

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
        self._forget_batches()
        self.wake()

    def evict(self, evicted: Evicted) -> None:
        """Remove events that were deleted; an interruption replaces the last of them."""
        self._forget_batches()
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
        """Wake all waiting subscriptions, in turn."""
        self._next.extend(self._up_to_date)
        self._up_to_date.clear()
        self._go_on()

    async def turn(self, place: int) -> None:
        """Wait until there are events after a place, and it is this subscription's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if place < self._latest:
            self._next.append(mine)
            self._go_on()
        else:
            self._up_to_date.add(mine)
        try:
            await mine
        finally:
            self._up_to_date.discard(mine)

    def hold(self) -> None:
        """Give no turns until `release`, since the writer's thread has work."""
        if not self._held_until:  # else many calls would stop the turns for longer
            self._held_until = asyncio.get_running_loop().time() + _MAX_HOLD

    def release(self) -> None:
        """Give turns again."""
        self._held_until = 0.0
        if self._turning is not None:
            self._turning.cancel()
            self._turning = None
        self._go_on()

    def _go_on(self) -> None:
        if self._next and self._turning is None:
            self._turning = asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._held_until:
            self._turning = loop.call_at(self._held_until, self._give_turns)
            return
        self._turning, self._held_until = None, 0.0
        given = 0
        while self._next and given < _AT_ONCE:
            one = self._next.popleft()
            if not one.done():  # else it was cancelled
                one.set_result(None)
                given += 1
        self._go_on()

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

    async def next_batch(self, wanted: Filter, place: int) -> tuple[Batch, int]:
        """Return the next batch after a place, maybe without events, and where it ends. Raises as `after`."""
        if place + 1 < self._first_recent:
            events, end = await self.after(wanted, place)
            return Batch(events, self.positions.of(end)), end
        shared = self._batches.get((wanted, place))
        if shared is not None:
            return shared, self._latest
        events, end = self._recent_after(wanted, place, CHUNK_EVENTS, CHUNK_SIZE)
        batch = Batch(events, self.positions.of(end))
        if end == self._latest:
            if not events:
                batch = self._nothing = self._nothing or batch
            self._batches[wanted, place] = batch
        return batch, end

    def _forget_batches(self) -> None:
        self._batches.clear()
        self._nothing = None

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
        while not self._has_ended:
            try:
                async with asyncio.timeout_at(due if place >= feed.latest else None):
                    await feed.turn(place)
            except TimeoutError:
                self._place = place
                return Batch([], self._positions.of(place))
            if self._has_ended or place >= feed.latest:
                continue
            batch, place = await feed.next_batch(self._wanted, place)
            if batch.events or place - self._place >= _PASSED_OVER or loop.time() >= due:
                self._place = place
                return batch
        raise StopAsyncIteration

    @property
    def _has_ended(self) -> bool:
        return self._is_closed or self._feed.is_closed

    async def aclose(self) -> None:
        """End it."""
        self._is_closed = True
        self._feed.wake()
