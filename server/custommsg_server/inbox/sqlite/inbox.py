"""The SQLite engine behind the port: asyncio on one side, threads and the file on the other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar, TypeVarTuple

import structlog

from custommsg_server.domain.events import Arrival
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Batch,
    Bounds,
    Consumer,
    Event,
    InboxError,
    Position,
    Start,
)
from custommsg_server.inbox.sqlite.feed import CHUNK_EVENTS, CHUNK_SIZE, Feed, FeedSubscription
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import Report, Writer, WriterOptions
from custommsg_server.storage.files import NoFolderError, make_folder

log = structlog.get_logger()

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_READERS: Final = 1
"""Threads that read the file for subscribers. More would not read more: Python runs one thread at a time, and the event
loop would wait for all of them."""
_READ_TIME: Final = 0.5
"""Seconds after which a page is returned even if it is not full."""


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Options of the inbox. Times are in seconds, sizes in bytes of memory."""

    recent_size: int = 8 << 20
    """The size of the newest events that stay in memory, for all subscribers together."""
    heartbeat: float = 15.0
    """The time without events after which a subscription reports its position."""
    make_parents: bool = True
    """Whether to create all parent folders of the file; if not, only the last one."""
    writer: WriterOptions = field(default_factory=WriterOptions)


class SqliteInbox:
    """Stores events in an SQLite file. Implements `inbox.port.Inbox`.

    If the file cannot be used, `error` says why, and the inbox tries again. Use it as an async context manager, or
    call `start` and `close`.

    Args:
        path: the file; it is created with its folder if it does not exist.
        retention: how long events are stored.
        options: its options.
        open_store: opens the file, on another thread.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention,
        options: SqliteOptions | None = None,
        open_store: Callable[[Path], SqliteStore] = SqliteStore,
    ) -> None:
        options = options or SqliteOptions()
        make_parents = options.make_parents
        self._writer = Writer(
            lambda: _open(path, make_parents, open_store), retention, options.writer, self._report
        )
        self._feed = Feed(self._read, options.recent_size, options.heartbeat)
        self._store: SqliteStore | None = None
        self._error: str | None = "the inbox is not open yet"
        self._lost = self._evicted = 0
        self._watchers: list[Callable[[str | None], None]] = []
        self._is_closed = False
        self._readers = ThreadPoolExecutor(_READERS, "inbox-reader")
        self._consumers = SqliteConsumers(self._feed, self._opened)

    async def start(self) -> None:
        """Open the file. If that fails, `error` says why, and it is tried again."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._writer.start()
        await self._started

    async def run(self) -> None:
        """Wait until cancelled; raise the error if the writer's thread has ended."""
        await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Store what waits, end all subscriptions, and close the file."""
        self._is_closed = True
        self._feed.close()
        self._writer.stop()
        await asyncio.to_thread(self._close)
        if self._error is not None and self._lost:
            log.error("inbox closed while it fails; messages are lost", error=self._error, lost=self._lost)

    async def __aenter__(self) -> SqliteInbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def error(self) -> str | None:
        """The current error, as text for people; None if there is none."""
        return self._error

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        """Call `watcher` with `error`, now and whenever it changes."""
        self._watchers.append(watcher)
        watcher(self._error)

    @property
    def consumers(self) -> SqliteConsumers:
        """The named consumers."""
        return self._consumers

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[Sequence[Position]]:
        """Store arrivals; see `inbox.port.Inbox`. Appending many at once is faster."""
        positions: asyncio.Future[Sequence[Position]] = self._loop.create_future()
        if self._is_closed:
            _fail(positions, "the inbox is closed")
        elif self._ended.done():
            _fail(positions, "the inbox's writer has ended because of a bug")
        elif not arrivals:
            positions.set_result([])
        else:
            self._feed.hold()
            self._writer.put(arrivals, positions)
        return positions

    async def subscribe(self, wanted: Filter, start: Start | Position) -> FeedSubscription:
        """Subscribe; see `inbox.port.Inbox`."""
        self._opened()
        return self._feed.subscribe(wanted, start)

    async def read(self, wanted: Filter, after: Position | None, limit: int) -> Batch:
        """Return a page of stored events, of at most 1 MiB; see `inbox.port.Inbox`."""
        self._opened()
        feed, end = self._feed, self._loop.time() + _READ_TIME
        place = feed.place(Start.BEGINNING if after is None else after)
        until, size = feed.latest, CHUNK_SIZE
        events: list[Event] = []
        while place < until and len(events) < limit and size > 0 and self._loop.time() < end:
            some, place = await feed.after(wanted, place, min(limit - len(events), CHUNK_EVENTS), size)
            events += some
            size -= sum([len(event.arrival.message) for event in some])
        return Batch(events, feed.positions.of(place), place >= until)

    def keep_more_of(self, peer_ids: Collection[bytes]) -> None:
        """Store more events of these peers; see `inbox.port.Inbox`."""
        self._writer.favored = json.dumps([peer_id.hex() for peer_id in peer_ids])

    async def bounds(self) -> Bounds:
        """Return the content; see `inbox.port.Inbox`."""
        held = await self._loop.run_in_executor(self._readers, self._opened().held)
        # The newest event that subscribers know: the file may have newer ones by now.
        of, latest = self._feed.positions.of, self._feed.latest
        earliest = of(min(held.floor, latest))
        return Bounds(
            earliest, of(latest), held.count, held.size, held.oldest_ns, held.largest_share, self._evicted
        )

    async def _read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        store = self._opened()
        return await self._loop.run_in_executor(
            self._readers, store.read, wanted, after, until, limit, max_size
        )

    def _opened(self) -> SqliteStore:
        if self._store is None or self._is_closed:
            raise InboxError("the inbox is closed" if self._is_closed else self._error)
        return self._store

    def _close(self) -> None:
        self._writer.join()
        self._consumers.close()
        self._readers.shutdown()
        if self._store is not None:
            self._store.close()

    def _report(self, report: Report) -> None:
        """Pass a report from the writer's thread to the event loop, which is woken once for each report."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._take, report)

    def _take(self, report: Report) -> None:
        if report.opened is not None:
            assert report.held is not None
            self._store = report.opened
            self._feed.open(report.opened.positions, report.held)
        elif report.held is not None:
            self._feed.forget(report.held.floor)
        self._feed.release()
        if report.stored is not None:
            self._feed.publish(report.stored)
        for evicted in report.evicted:
            self._feed.evict(evicted)
            self._evicted += evicted.messages
        self._lost += report.lost
        for pending, positions in zip(report.done, report.positions, strict=True):
            if pending.positions is None or pending.positions.done():  # the waiting task was cancelled
                continue
            if positions is None:
                _fail(pending.positions, report.error or "the inbox could not store this")
            else:
                pending.positions.set_result(positions)
        self._set_error(report.error)
        if report.ended_by is not None:
            ended = RuntimeError("the inbox's writer has ended")
            ended.__cause__ = report.ended_by
            self._ended.set_exception(ended)
            self._ended.exception()  # so that asyncio does not report it as never retrieved
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


class SqliteConsumers:
    """The named consumers. Implements `inbox.port.Consumers`. `opened` returns the store, or raises InboxError."""

    def __init__(self, feed: Feed, opened: Callable[[], SqliteStore]) -> None:
        self._feed = feed
        self._opened = opened
        # Not a thread of the readers: it waits for the writer, and they must not.
        self._thread = ThreadPoolExecutor(1, "inbox-consumers")

    async def open(self, name: str, start: Start | Position) -> Position:
        """Return the position of a consumer; create it at `start` if it does not exist."""
        known = {one: place for one, place, _ in await self._run(self._opened().consumers)}
        place = known.get(name)
        if place is None:
            make = (
                self._opened().open_consumer
            )  # not that of before: the inbox may have been closed meanwhile
            place = await self._run(make, name, self._feed.place(start), time.time_ns())
        return self._feed.positions.of(place)

    async def ack(self, name: str, position: Position) -> Position | None:
        """Advance a consumer, never back; return its position, or None if it does not exist."""
        store, place = self._opened(), self._feed.reached(position)
        now = await self._run(store.advance, name, place, time.time_ns())
        return None if now is None else self._feed.positions.of(now)

    async def list(self) -> list[Consumer]:
        """Return all consumers, by name."""
        consumers = await self._run(self._opened().consumers)
        of, latest, floor = self._feed.positions.of, self._feed.latest, self._feed.floor
        return [
            Consumer(name, of(place), updated_ns, max(0, latest - place), place < floor)
            for name, place, updated_ns in consumers
        ]

    async def delete(self, name: str) -> bool:
        """Delete a consumer; return whether it existed."""
        return await self._run(self._opened().delete_consumer, name)

    async def _run(self, method: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, method, *args)

    def close(self) -> None:
        """End the thread; no other method may be called after that."""
        self._thread.shutdown()


def _open(path: Path, make_parents: bool, open_store: Callable[[Path], SqliteStore]) -> SqliteStore:
    try:
        make_folder(path.parent, make_parents, "inbox")
    except NoFolderError as error:
        raise InboxError(str(error)) from None
    return open_store(path)


def _fail(positions: asyncio.Future[Sequence[Position]], why: str) -> None:
    positions.set_exception(InboxError(why))
    positions.exception()  # as above: the task that waits may have been cancelled
