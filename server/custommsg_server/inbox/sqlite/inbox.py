"""The SQLite engine as the port describes an inbox: asyncio on this side, threads and the file on the other."""

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
from typing import Final

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

log = structlog.get_logger()

_READERS: Final = 4
"""Threads that read the store for subscribers."""
_READ_TIME: Final = 0.5
"""Seconds after which a page ends that is not full."""


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """How the inbox behaves. Times are in seconds, sizes in bytes of memory."""

    recent_size: int = 8 << 20
    """How much of what was committed last is kept in memory, for all subscribers together."""
    heartbeat: float = 15.0
    """After how long a subscription says where it is, if it has nothing else to say."""
    make_parents: bool = True
    """Whether to make the file's folder wherever it is; else only within a folder that exists."""
    writer: WriterOptions = field(default_factory=WriterOptions)


class SqliteInbox:
    """Keeps what arrives in an SQLite file. Implements `inbox.port.Inbox`.

    It works without its file, as far as that is possible: then `error` says what is wrong, and it is tried
    again. Use it as an async context manager, or call `start` and `close`.

    Args:
        path: the file; it is made if it does not exist, with its folder.
        retention: how long events are kept.
        options: how to behave.
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
        """Open the file, or at least try: if it fails, `error` says why, and it is tried again."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._writer.start()
        await self._started

    async def run(self) -> None:
        """Wait, until cancelled, for as long as the writer's thread runs; raise what has ended it."""
        await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Store what waits, end all subscriptions, and let go of the file."""
        self._is_closed = True
        self._feed.close()
        self._writer.stop()
        await asyncio.to_thread(self._close)
        if self._error is not None:
            log.error("inbox closed while it fails; what waited is lost", error=self._error, lost=self._lost)

    async def __aenter__(self) -> SqliteInbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def error(self) -> str | None:
        """What is wrong with the file now, in words for a person; None if nothing is."""
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
        """Store arrivals; see `inbox.port.Inbox`. Hand in many at once where there are many."""
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
        """Keep more of these peers; see `inbox.port.Inbox`."""
        self._writer.favored = json.dumps([peer_id.hex() for peer_id in peer_ids])

    async def bounds(self) -> Bounds:
        """Return what is held; see `inbox.port.Inbox`."""
        held = await self._loop.run_in_executor(self._readers, self._opened().held)
        # The newest event that subscribers know of: the file may be further by now.
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
        """Take a report on the writer's thread; the loop is woken once for it, however much was stored."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
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
            if pending.positions is None or pending.positions.done():  # whoever waited was cancelled
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
            self._ended.exception()  # whoever does not wait for it need not hear of it
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
    """The named consumers. Implements `inbox.port.Consumers`.

    Args:
        feed: knows the positions.
        opened: returns the store, or raises InboxError.
    """

    def __init__(self, feed: Feed, opened: Callable[[], SqliteStore]) -> None:
        self._feed = feed
        self._opened = opened
        # Apart from the readers: it waits for the writer, and they should not.
        self._thread = ThreadPoolExecutor(1, "inbox-consumers")

    async def open(self, name: str, start: Start | Position) -> Position:
        """Return the position of a consumer; make it, where `start` says, if there is none of that name."""
        store, loop = self._opened(), asyncio.get_running_loop()
        known = {
            one: position for one, position, _ in await loop.run_in_executor(self._thread, store.consumers)
        }
        place = known.get(name)
        if place is None:
            at = self._feed.place(start)
            place = await loop.run_in_executor(self._thread, store.open_consumer, name, at, time.time_ns())
        return self._feed.positions.of(place)

    async def ack(self, name: str, position: Position) -> Position | None:
        """Move a consumer on to a position, if that is further; return where it is now; None: no such consumer."""
        store, place = self._opened(), self._feed.reached(position)
        loop = asyncio.get_running_loop()
        now = await loop.run_in_executor(self._thread, store.advance, name, place, time.time_ns())
        return None if now is None else self._feed.positions.of(now)

    async def list(self) -> list[Consumer]:
        """Return all of them, by name."""
        loop = asyncio.get_running_loop()
        consumers = await loop.run_in_executor(self._thread, self._opened().consumers)
        of, latest, floor = self._feed.positions.of, self._feed.latest, self._feed.floor
        return [
            Consumer(name, of(place), updated_ns, max(0, latest - place), place < floor)
            for name, place, updated_ns in consumers
        ]

    async def delete(self, name: str) -> bool:
        """Delete one; return whether there was one."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._opened().delete_consumer, name)

    def close(self) -> None:
        """End the thread; nobody may call any more."""
        self._thread.shutdown()


def _open(path: Path, make_parents: bool, open_store: Callable[[Path], SqliteStore]) -> SqliteStore:
    folder = path.parent
    try:
        folder.mkdir(parents=make_parents, exist_ok=True, mode=0o700)
    except FileNotFoundError:
        raise InboxError(
            f"{folder.parent} does not exist yet; lightningd makes it. The inbox is made then; or set data_dir"
        ) from None
    except OSError as error:
        raise InboxError(f"cannot make {folder} for the inbox ({error.strerror}); set data_dir") from None
    return open_store(path)


def _fail(positions: asyncio.Future[Sequence[Position]], why: str) -> None:
    positions.set_exception(InboxError(why))
    positions.exception()  # whoever does not wait for it need not hear of it
