"""The SQLite engine as the port describes an outbox: asyncio on this side, threads and the file on the other.

What is asked for while a commit is under way goes together into the next one. The outbox has a file of its own, apart
from the inbox: docs/decisions.md says why.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import apsw
import structlog

from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.outbox import Draft, Ending, Entry, Outcome, Waiting
from custommsg_server.outbox.port import (
    Begun,
    Bounds,
    Counts,
    Enqueued,
    OutboxError,
    Page,
    Wanted,
)
from custommsg_server.outbox.sqlite import reading, writing
from custommsg_server.outbox.sqlite.store import Job, OutboxStore, Transaction
from custommsg_server.storage.files import NoFolderError, make_folder

log = structlog.get_logger()

T = TypeVar("T")
OpenStore = Callable[[Path], OutboxStore]

_JOBS: Final = 256
"""Jobs that go into one commit, at most."""
_PAGE_SIZE: Final = 1 << 20
"""Bytes of messages in a page, at most, if that is not a single one."""
_REOPEN: Final = 0.5
"""Seconds after which opening the file is tried again."""


@dataclass(slots=True, eq=False)
class _Queued:
    """A job that waits for its commit."""

    work: Job
    done: asyncio.Future[Any]
    is_durable: bool


@dataclass(slots=True, eq=False)
class _Group:
    """Messages of one caller that wait for the same commit."""

    drafts: list[Draft] = field(default_factory=list)
    takers: list[tuple[asyncio.Future[Sequence[Enqueued | RelayError]], int]] = field(default_factory=list)
    """Who wants the results of how many of them, in order."""


class SqliteOutbox:
    """Keeps messages that wait in an SQLite file. Implements `outbox.port.Outbox`.

    While the file cannot be used, each call fails, and `error` says why; opening it is tried again with later calls.
    Use it as an async context manager, or call `start` and `close`.

    Args:
        path: the file; it is made if it does not exist.
        bounds: what may wait, and what is kept.
        make_parents: make its folder wherever it is; else only within a folder that exists.
        open_store: opens the file, on another thread.
    """

    def __init__(
        self, path: Path, bounds: Bounds, make_parents: bool = True, open_store: OpenStore = OutboxStore
    ) -> None:
        self._path = path
        self._bounds = bounds
        self._make_parents = make_parents
        self._open_store = open_store
        self._store: OutboxStore | None = None
        self._error: str | None = "the outbox is not open yet"
        self._retry_at = 0.0
        self._changed = threading.Condition()
        self._jobs: deque[_Queued] = deque()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._watchers: list[Callable[[], None]] = []
        self._is_closed = False
        self._readers = ThreadPoolExecutor(2, "outbox-reader")
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)

    async def start(self) -> None:
        """Open the file, or at least try: if it fails, `error` says why, and it is tried again."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        with suppress(OutboxError):
            await self._do(lambda the: None)

    async def close(self) -> None:
        """Store what waits, and let go of the file."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._readers.shutdown)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> SqliteOutbox:
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

    def set(self, bounds: Bounds) -> None:
        """Apply other bounds from now on."""
        self._bounds = bounds

    def watch_endings(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` whenever entries may have ended."""
        self._watchers.append(watcher)

    def enqueue(
        self, caller: str, credential: str, drafts: Sequence[Draft]
    ) -> asyncio.Future[Sequence[Enqueued | RelayError]]:
        """Store messages; see `outbox.port.Outbox`. Those of one caller that wait together are stored together."""
        done: asyncio.Future[Sequence[Enqueued | RelayError]] = self._loop.create_future()
        key = caller, credential
        with self._changed:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group()
                job = _Queued(lambda the: self._enqueue(key, group, the), self._loop.create_future(), True)
                job.done.add_done_callback(lambda stored: self._share(key, group, stored))
                self._put(job)
            group.drafts += drafts
            group.takers.append((done, len(drafts)))
        return done

    async def begin(self, caller: str, drafts: Sequence[Draft]) -> Sequence[Begun | RelayError]:
        """Store that messages are about to be sent; see `outbox.port.Outbox`."""

        def begin(the: Transaction) -> list[Begun | RelayError]:
            results: list[Begun | RelayError] = []
            for one in self._adding(the, caller).begin(drafts):
                if isinstance(one, RelayError):
                    results.append(one)
                else:
                    entry = reading.read_entry(the.connection, the.text_of, one[0])
                    assert entry is not None
                    results.append(Begun(entry, one[1]))
            return results

        return await self._do(begin)

    async def waiting(self, peer_id: bytes, after: str, most: int, size: int) -> Sequence[Waiting]:
        """Return what waits for a peer; see `outbox.port.Outbox`."""
        store = self._opened()
        return await self._read(
            lambda connection: reading.read_waiting(
                connection, store.text_of, peer_id, store.number_of(after), most, size
            )
        )

    async def attempt(self, entry_ids: Sequence[str]) -> Collection[str]:
        """Store that entries are about to be sent; see `outbox.port.Outbox`."""
        store = self._opened()
        ids = [store.number_of(entry_id) for entry_id in entry_ids]
        marked = await self._do(lambda the: writing.mark_sending(the.connection, ids, the.now))
        return {store.text_of(id_) for id_ in marked}

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Store what became of attempts; see `outbox.port.Outbox`."""
        store = self._opened()
        numbered = [(store.number_of(outcome.entry_id), outcome) for outcome in outcomes]
        # A power failure that takes it back leaves an attempt without an outcome, which is dealt with at the start.
        await self._do(lambda the: writing.settle(the.connection, numbered, the.now), is_durable=False)
        self._ended()

    async def find(self, caller: str, *, entry_id: str = "", key: str = "") -> Entry | None:
        """Return an entry; see `outbox.port.Outbox`."""
        store = self._opened()
        if entry_id:
            number = store.number_of(entry_id)
            return await self._read(lambda connection: reading.read_entry(connection, store.text_of, number))
        return await self._read(
            lambda connection: reading.read_by_key(connection, store.text_of, caller, key)
        )

    async def page(self, wanted: Wanted, after: str, most: int) -> Page:
        """Return a page of entries; see `outbox.port.Outbox`."""
        store = self._opened()
        entries, end = await self._read(
            lambda connection: reading.read_page(
                connection, store.text_of, wanted, store.number_of(after), most, _PAGE_SIZE
            )
        )
        return Page(entries, store.text_of(end) if end else "")

    async def cancel(self, entry_id: str) -> Entry | None:
        """Cancel an entry if it waits; see `outbox.port.Outbox`."""
        number = self._opened().number_of(entry_id)

        def cancel(the: Transaction) -> Entry | None:
            writing.cancel(the.connection, number, the.now)
            return reading.read_entry(the.connection, the.text_of, number)

        entry = await self._do(cancel)
        self._ended()
        return entry

    async def waiting_for(self, after: bytes, most: int) -> Sequence[bytes]:
        """Return peers for whom something waits; see `outbox.port.Outbox`."""
        return await self._read(lambda connection: reading.read_peers(connection, after, most))

    async def endings(self, most: int) -> Sequence[Ending]:
        """Return endings that were not told yet; see `outbox.port.Outbox`."""
        store = self._opened()
        return await self._read(lambda connection: reading.read_endings(connection, store.text_of, most))

    async def told(self, number: int) -> None:
        """Store that endings were told; see `outbox.port.Outbox`."""
        await self._do(
            lambda the: the.connection.execute(
                "UPDATE meta SET value = max(value, ?) WHERE name = 'told'", (number,)
            ),
            is_durable=False,
        )

    async def tidy(self) -> bool:
        """Expire and delete; see `outbox.port.Outbox`."""
        bounds = self._bounds

        def tidy(the: Transaction) -> bool:
            is_more = writing.expire(the.connection, the.now)
            return writing.prune(the.connection, bounds, the.now) or is_more

        is_more = await self._do(tidy, is_durable=False)
        self._ended()
        return is_more

    async def counts(self) -> Counts:
        """Return what is held; see `outbox.port.Outbox`."""
        return await self._read(reading.read_counts)

    def _adding(self, the: Transaction, caller: str) -> writing.Adding:
        return writing.Adding(the.connection, caller, self._bounds, the.now, the.next_id, the.text_of)

    def _enqueue(self, key: tuple[str, str], group: _Group, the: Transaction) -> list[Enqueued | RelayError]:
        with self._changed:
            if self._groups.get(key) is group:  # else this is tried again
                del self._groups[key]
        return self._adding(the, key[0]).enqueue(key[1], group.drafts)

    def _share(
        self, key: tuple[str, str], group: _Group, stored: asyncio.Future[Sequence[Enqueued | RelayError]]
    ) -> None:
        """Give each who waits for a part of a group its results."""
        with self._changed:
            if self._groups.get(key) is group:  # it failed before it was looked at
                del self._groups[key]
        error, at = stored.exception(), 0
        for done, count in group.takers:
            if error is None:
                _answer([(done, stored.result()[at : at + count])])
            else:
                _answer([(done, error)])
            at += count

    def _ended(self) -> None:
        for watcher in self._watchers:
            watcher()

    async def _read(self, job: Callable[[apsw.Connection], T]) -> T:
        store = self._opened()
        return await self._loop.run_in_executor(self._readers, store.read, job)

    def _opened(self) -> OutboxStore:
        if self._store is None or self._is_closed:
            raise OutboxError(self._error or "the outbox is closed")
        return self._store

    async def _do(self, work: Callable[[Transaction], T], *, is_durable: bool = True) -> T:
        job = _Queued(work, self._loop.create_future(), is_durable)
        with self._changed:
            self._put(job)
        result: T = await job.done
        return result

    def _put(self, job: _Queued) -> None:
        if self._is_closed:
            job.done.set_exception(OutboxError("the outbox is closed"))
        else:
            self._jobs.append(job)
            self._changed.notify()

    # On the writer's thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                jobs = [self._jobs.popleft() for _ in range(min(_JOBS, len(self._jobs)))]
            answers: list[tuple[asyncio.Future[Any], Any]] = []
            try:
                self._commit(jobs, answers)
            except Exception as error:
                # Nobody may wait for ever because of a bug.
                log.error("unexpected error in the outbox's writer", exc_info=error)
                why = OutboxError(f"unexpected {type(error).__name__}; see the log", is_unknown=True)
                answered = {done for done, _ in answers}
                answers += [(job.done, why) for job in jobs if job.done not in answered]
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(_answer, answers)

    def _commit(self, jobs: list[_Queued], answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
        try:
            store = self._open()
            results = store.run([job.work for job in jobs], is_durable=any(job.is_durable for job in jobs))
        except OutboxError as error:
            if len(jobs) > 1 and self._store is not None and not error.is_unknown:
                # One by one: what is too large for the disk must not fail what is not.
                for job in jobs:
                    self._commit([job], answers)
                return
            self._set_error(str(error))
            answers += [(job.done, error) for job in jobs]
        else:
            self._set_error(None)
            answers += [(job.done, result) for job, result in zip(jobs, results, strict=True)]

    def _open(self) -> OutboxStore:
        if self._store is None:
            if time.monotonic() < self._retry_at:
                raise OutboxError(self._error or "the outbox is not open yet")
            self._retry_at = time.monotonic() + _REOPEN
            try:
                make_folder(self._path.parent, self._make_parents, "outbox")
            except NoFolderError as error:
                raise OutboxError(str(error)) from None
            self._store = self._open_store(self._path)
            if self._store.recovered:
                log.warning(
                    "messages were being sent when the gateway stopped; those sent at most once are UNKNOWN now",
                    messages=self._store.recovered,
                )
        return self._store

    def _set_error(self, error: str | None) -> None:
        if error != self._error:
            if error is not None:
                log.error("outbox fails", error=error)
            elif self._error != "the outbox is not open yet":
                log.warning("outbox works again")
            self._error = error


def _answer(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, answer in answers:
        if done.done():  # whoever waited was cancelled
            continue
        if isinstance(answer, Exception):
            done.set_exception(answer)
            done.exception()  # whoever does not wait for it need not hear of it
        else:
            done.set_result(answer)
