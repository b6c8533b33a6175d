"""The inbox as the rest of the gateway sees it: asyncio on this side, the store on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, TypeVar

import structlog

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Consumer, Event, Range, Retention, Store, StoreError
from custommsg_server.inbox.position import PositionUnknown, Start
from custommsg_server.inbox.sqlite.feed import EVENT_OVERHEAD, Feed, Subscription
from custommsg_server.inbox.sqlite.writer import Pending, Report, Writer, WriterOptions

T = TypeVar("T")
log = structlog.get_logger()

_READERS: Final = 4
"""Threads that read the store for subscribers."""


@dataclass(frozen=True, slots=True)
class InboxOptions:
    """How the inbox behaves. Times are in seconds, sizes in bytes of memory."""

    max_waiting: int = 16 << 20
    """What may wait to be stored before the inbox is full."""
    recent_size: int = 8 << 20
    """How much of what was committed last is kept in memory, for all subscribers together."""
    heartbeat: float = 15.0
    """After how long a subscription says where it is, if it has nothing else to say."""
    writer: WriterOptions = field(default_factory=WriterOptions)


class Inbox:
    """Keeps what arrives, and feeds subscribers. It works without its store, as far as that is possible.

    Use it as an async context manager, or call `start` and `close`.

    Args:
        open_store: opens the store, on another thread; it is called again while it raises StoreError.
        retention: how long events are kept.
        options: how to behave.
    """

    def __init__(
        self, open_store: Callable[[], Store], retention: Retention, options: InboxOptions | None = None
    ) -> None:
        options = options or InboxOptions()
        self._writer = Writer(open_store, retention, options.writer, self._report)
        self._feed = Feed(self._read, options.recent_size, options.heartbeat)
        self._max_waiting = options.max_waiting
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._store: Store | None = None
        self._error: str | None = "the inbox is not open yet"
        self._lost = 0
        self._watchers: list[Callable[[str | None], None]] = []
        self._is_closed = False
        self._readers = ThreadPoolExecutor(_READERS, "inbox-reader")
        # Apart from the readers: it waits for the writer, and they should not.
        self._keeper = ThreadPoolExecutor(1, "inbox-consumers")

    async def start(self) -> None:
        """Open the store, or at least try: if it fails, `error` says why, and it is tried again."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._writer.start()
        await self._started

    async def close(self) -> None:
        """Store what waits, end all subscriptions, and let go of the store."""
        self._is_closed = True
        self._feed.close()
        self._writer.stop()
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Inbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def error(self) -> str | None:
        """What is wrong with the store now, in words for a person; None if nothing is."""
        return self._error

    @property
    def lost(self) -> int:
        """How many messages could not be stored since the start."""
        return self._lost

    @property
    def inbox_id(self) -> str:
        """The random name of the store; "" while it could not be opened."""
        return "" if self._store is None else self._store.inbox_id

    @property
    def earliest(self) -> int:
        """The sequence number of the oldest event that is kept; `latest + 1` if none is."""
        return self._feed.earliest

    @property
    def latest(self) -> int:
        """The sequence number of the newest event that was committed; 0 if there is none."""
        return self._feed.latest

    @property
    def waiting(self) -> int:
        """Bytes of memory that wait to be stored."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be stored that whoever appends should wait, too."""
        return self._waiting >= self._max_waiting

    async def has_room(self) -> None:
        """Wait until the inbox is not full."""
        while self.is_full:
            await self._room.wait()

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        """Call `watcher` with `error`, now and whenever it changes."""
        self._watchers.append(watcher)
        watcher(self._error)

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Store arrivals, in this order and after all that were appended before.

        Hand in many at once where there are many. They are taken even if the inbox is full.

        Returns:
            True when they are committed, False if they are lost. It never raises.
        """
        is_stored: asyncio.Future[bool] = self._loop.create_future()
        if self._is_closed or not arrivals:
            is_stored.set_result(not arrivals)
            return is_stored
        size = sum([len(arrival.message) for arrival in arrivals]) + EVENT_OVERHEAD * len(arrivals)
        self._waiting += size
        if self.is_full:
            self._room.clear()
        self._writer.put(Pending(arrivals, size, is_stored))
        return is_stored

    def subscribe(self, wanted: Filter, start: Start | int = Start.LIVE) -> Subscription:
        """Subscribe; see `Feed.subscribe`.

        Raises:
            PositionExpired: what comes after `start` is no longer kept.
            PositionUnknown: `start` is beyond the newest event.
            StoreError: the store could not be opened yet.
        """
        self._opened()
        return self._feed.subscribe(wanted, start)

    async def range(self) -> Range:
        """Return what is held.

        Raises:
            StoreError: the store cannot be read now.
        """
        store = self._opened()
        return await self._loop.run_in_executor(self._readers, store.range)

    async def consumers(self) -> list[Consumer]:
        """Return the named consumers.

        Raises:
            StoreError: the store cannot be read now.
        """
        store = self._opened()
        return await self._loop.run_in_executor(self._readers, store.consumers)

    async def advance(self, name: str, position: int) -> int:
        """Set a consumer's position, if that is further than where it is; make it if it is new.

        Args:
            name: the consumer.
            position: the sequence number of the last event that it has dealt with.

        Returns:
            Its position now.

        Raises:
            PositionUnknown: there is no such event yet.
            StoreError: the store cannot be written now.
        """
        store = self._opened()
        if not 0 <= position <= self._feed.latest:
            raise PositionUnknown(self._feed.earliest, self._feed.latest)
        return await self._loop.run_in_executor(self._keeper, store.advance, name, position, time.time_ns())

    async def forget(self, name: str) -> bool:
        """Forget a consumer; return whether there was one.

        Raises:
            StoreError: the store cannot be written now.
        """
        store = self._opened()
        return await self._loop.run_in_executor(self._keeper, store.forget, name)

    async def _read(self, after: int, limit: int, max_size: int) -> list[Event]:
        store = self._opened()
        return await self._loop.run_in_executor(self._readers, store.read, after, limit, max_size)

    def _opened(self) -> Store:
        if self._store is None or self._is_closed:
            raise StoreError("the inbox is closed" if self._is_closed else self._error)
        return self._store

    def _close(self) -> None:
        self._writer.join()
        self._keeper.shutdown()
        self._readers.shutdown()
        if self._store is not None:
            self._store.close()

    def _report(self, report: Report) -> None:
        """Take a report on the writer's thread; the loop is woken once for it, however much was stored."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._take, report)

    def _take(self, report: Report) -> None:
        if report.opened is not None:
            self._store = report.opened
            assert report.held is not None
            self._feed.open(report.held)
        if report.held is not None:
            self._feed.forget(report.held.earliest)
        self._feed.publish(report.events)
        self._lost += report.lost
        for pending in report.done:
            self._waiting -= pending.size
            if not pending.is_stored.done():  # else whoever waited was cancelled
                pending.is_stored.set_result(report.is_stored)
        if not self.is_full:
            self._room.set()
        self._set_error(report.error)
        if not self._started.done():
            self._started.set_result(None)

    def _set_error(self, error: str | None) -> None:
        if error == self._error:
            return
        if error is not None:
            log.error("inbox fails", error=error, lost=self._lost)
        elif self._started.done():
            log.warning("inbox works again", lost=self._lost)
        self._error = error
        for watcher in self._watchers:
            watcher(error)
