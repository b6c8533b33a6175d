"""An outbox in one SQLite file: one connection writes, others read what is committed. Its methods block."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from custommsg_server.outbox.port import Counts, OutboxError
from custommsg_server.outbox.sqlite.reading import read_counts, read_last_id, read_meta
from custommsg_server.outbox.sqlite.schema import STEPS
from custommsg_server.outbox.sqlite.writing import Now, recover
from custommsg_server.storage.clock import AgeClock
from custommsg_server.storage.errors import EXPECTED, advice_on
from custommsg_server.storage.files import (
    FileLock,
    InPlace,
    Readers,
    empty_log,
    open_read_only,
    open_writer,
    reserve_space,
)
from custommsg_server.storage.migration import NewerVersionError, migrate
from custommsg_server.storage.values import number

T = TypeVar("T")

_ID: Final = re.compile(r"([0-9a-f]{16})-([1-9][0-9]{0,17})")
_MARK_INTERVAL: Final = 5_000_000_000
"""Nanoseconds after which a commit stores what the clocks say."""


@contextmanager
def outbox_errors(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with the file at `path` into an OutboxError."""
    try:
        yield
    except NewerVersionError as error:
        raise OutboxError(f"outbox {path}: {error}") from None
    except EXPECTED as error:
        raise OutboxError(f"outbox {path}: {advice_on(error, 'outbox')}") from error


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a job works with."""

    connection: apsw.Connection
    now: Now
    next_id: Callable[[], int]
    text_of: Callable[[int], str]


Job = Callable[[Transaction], Any]


def look_at(path: Path) -> Counts | None:
    """Return what an outbox holds, without changing anything; None: there is none.

    Raises:
        OutboxError: it cannot be read, or is damaged.
    """
    if not path.exists():
        return None
    with outbox_errors(path):
        readers = open_read_only(path)
        try:
            with readers.borrow() as connection:
                return read_counts(connection)
        finally:
            readers.close()


class OutboxStore:
    """Keeps entries in an SQLite file. Each method may be called from any thread, one writer at a time.

    Args:
        path: the file; it is made if it does not exist, readable by its owner only.
        wall_ns: the machine's clock.
        monotonic_ns: the time that passes.

    Raises:
        OutboxError: the file cannot be written, or another gateway uses it.
    """

    def __init__(
        self,
        path: Path,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path = path
        self._wall_ns = wall_ns
        self._file_lock: FileLock | None = None
        self._writer: apsw.Connection | None = None
        self._readers = Readers(path)
        self._is_durable: bool | None = None
        self._last_id: int | None = None
        self._marked = 0
        self._reading = threading.Lock()
        try:
            with outbox_errors(path):
                self._file_lock = FileLock(path)
                self._writer = open_writer(path)
                # What is deleted is overwritten where that costs nothing: credentials are among it.
                self._writer.execute("PRAGMA secure_delete = FAST")
                migrate(self._writer, STEPS)
                self._in_place = InPlace(path)
                self._page_size = number(self._writer.pragma("page_size"))
                meta = read_meta(self._writer)
                self._name = str(meta["outbox_id"])[:16]
                wall, marked = wall_ns(), int(meta["wall"])
                self._clock = AgeClock(int(meta["age"]) or wall, wall - marked if marked else 0, monotonic_ns)
            [self.recovered] = self.run([lambda the: recover(the.connection, the.now)], is_durable=True)
            """How many entries were being sent when the gateway stopped."""
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Job], *, is_durable: bool) -> list[Any]:
        """Run jobs in one transaction; return their results when they are safe.

        Args:
            jobs: what to do, in order.
            is_durable: safe from a power failure, too, and not only from the end of the process.

        Raises:
            OutboxError: nothing was done, unless `is_unknown`.
        """
        is_committing = False
        try:
            with outbox_errors(self._path):
                connection = self._writer
                if connection is None:
                    raise OutboxError(f"outbox {self._path}: it is closed")
                self._in_place.check()
                if is_durable is not self._is_durable:
                    connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
                    self._is_durable = is_durable
                connection.execute("BEGIN IMMEDIATE")
                try:
                    transaction = Transaction(connection, self._now(connection), self._next_id, self.text_of)
                    results = [job(transaction) for job in jobs]
                    reserve_space(connection, self._page_size)
                    is_committing = True
                    connection.execute("COMMIT")
                except BaseException:
                    self._last_id = None
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                        is_committing = False
                    empty_log(connection)
                    raise
        except OutboxError as error:
            error.is_unknown = is_committing
            raise
        return results

    def read(self, job: Callable[[apsw.Connection], T]) -> T:
        """Read what is committed. Raises OutboxError."""
        with outbox_errors(self._path), self._readers.borrow() as connection:
            return job(connection)

    def text_of(self, id_: int) -> str:
        """Return the text of an id, by which the core knows an entry."""
        return f"{self._name}-{id_}"

    def number_of(self, text: str) -> int:
        """Return the number in the text of an id; 0 if it is not an id of this outbox."""
        found = _ID.fullmatch(text)
        return int(found[2]) if found is not None and found[1] == self._name else 0

    def close(self) -> None:
        """Let go of the file."""
        self._readers.close()
        if self._writer is not None:
            self._writer.close(True)
            self._writer = None
        if self._file_lock is not None:
            self._file_lock.release()
            self._file_lock = None

    def _now(self, connection: apsw.Connection) -> Now:
        now = Now(self._clock.now(), self._wall_ns())
        if now.age - self._marked > _MARK_INTERVAL:
            # What is still to be made up for counts as time that the gateway is away.
            connection.execute(
                "UPDATE meta SET value = CASE name WHEN 'age' THEN ?1 ELSE ?2 END WHERE name IN ('age', 'wall')",
                (now.age, now.wall - self._clock.away),
            )
            self._marked = now.age
        return now

    def _next_id(self) -> int:
        if self._last_id is None:
            assert self._writer is not None
            self._last_id = read_last_id(self._writer)
        self._last_id += 1
        return self._last_id
