"""An inbox in one SQLite file: one connection writes, others read committed data. The methods block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import apsw

from custommsg_server.domain.events import Arrival
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, InboxError
from custommsg_server.inbox.sqlite.errors import inbox_errors
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import (
    Chunk,
    Held,
    read_chunk,
    read_consumers,
    read_held,
    read_inbox_id,
    read_latest,
)
from custommsg_server.inbox.sqlite.retention import (
    Evicted,
    Retention,
    delete_old,
    evict,
    last_mark,
    mark,
)
from custommsg_server.inbox.sqlite.schema import STEPS
from custommsg_server.inbox.sqlite.writing import Numbers, add_events
from custommsg_server.storage.clock import AgeClock
from custommsg_server.storage.files import (
    FileLock,
    InPlace,
    Readers,
    empty_log,
    open_read_only,
    open_writer,
    reserve_space,
)
from custommsg_server.storage.migration import check_version, migrate, version_of
from custommsg_server.storage.values import number

T = TypeVar("T")

_EVERYTHING: Final = Filter(peer_events=True, outbox_events=True)


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored events, with consecutive sequence numbers."""

    first: int
    """The sequence number of the first of them."""
    events: Sequence[Event]


class SqliteStore:
    """Stores events in an SQLite file. Each method may be called from any thread.

    The size of the inbox is the size of the pages in use: free pages are used again before the file grows. If the file
    cannot be written, it can still be read, and each `append` tries again to write.

    Args:
        path: the file; it is created if it does not exist, readable by its owner only. `<path>-wal` and `<path>-shm`
            are part of it, `<path>-lock` locks out other gateways.

    Raises:
        InboxError: the file can be neither written nor read, or another gateway uses it.
    """

    def __init__(self, path: Path, *, steps: Sequence[str] = STEPS) -> None:
        self._path = path
        self._steps = steps
        self._lock = threading.Lock()
        self._appending = threading.Lock()
        self._file_lock: FileLock | None = None
        self._writer: apsw.Connection | None = None
        self._in_place: InPlace | None = None
        self._readers = Readers(path)
        self._numbers = Numbers()
        self._is_durable: bool | None = None
        self._is_closed = False
        self._is_marked = False
        try:
            with inbox_errors(path):
                self._open()
            self.positions: Final = Positions(self._read(read_inbox_id))
            self._latest = self._read(read_latest)
            self._is_latest_known = False
        except BaseException:
            self.close()
            raise

    def append(self, arrivals: Sequence[Arrival]) -> Stored:
        """Store all arrivals in order, or none of them; return when they are safe on the disk.

        Their sequence numbers are consecutive. Without arrivals, this only checks whether the file can be written. A
        call may fail although its commit took effect: if the next call begins with the same arrivals, these are not
        stored again.

        Raises:
            InboxError: they are not stored, as far as is known.
        """
        with self._appending:
            with self._writing() as connection:
                latest = self._latest if self._is_latest_known else read_latest(connection)
                self._is_latest_known = False
                first = latest + 1
                if latest > self._latest and self._are_stored(connection, latest, arrivals):
                    first = self._latest + 1
                add_events(connection, self._numbers, latest + 1, arrivals[latest + 1 - first :])
            self._latest, self._is_latest_known = first - 1 + len(arrivals), True
        prefix = self.positions.prefix
        return Stored(
            first,
            [Event(f"{prefix}{place}", arrival) for place, arrival in enumerate(arrivals, first)],  # type: ignore[arg-type]
        )

    def read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        """Return some of the events that match a filter, in order; see `read_chunk`.

        Raises:
            InboxError: the file cannot be read.
        """
        return self._read(
            lambda connection: read_chunk(connection, self.positions, wanted, after, until, limit, max_size)
        )

    def held(self) -> Held:
        """Return the content of the inbox. Raises InboxError."""
        return self._read(read_held)

    def age_clock(self, wall_ns: int, monotonic_ns: Callable[[], int]) -> AgeClock:
        """Return the clock that measures the age of events, starting at the last mark. Raises InboxError."""
        age, marked_ns = self._read(last_mark) or (wall_ns, wall_ns)
        return AgeClock(age, wall_ns - marked_ns, monotonic_ns)

    def prune(self, retention: Retention, now: int, limit: int, wall_ns: int = 0, favored: str = "[]") -> int:
        """Delete some of the oldest events, if the retention requires it; return how many. See `delete_old`.

        One call takes only a moment: call it again until it returns 0.

        Raises:
            InboxError: nothing was deleted.
        """
        # Nothing after `_latest`: a commit that failed may have taken effect, and `append` will look for its events.
        # Not durable, which is faster: if the power fails, deleted events may be there again, which is harmless.
        with self._writing(is_durable=False) as connection:
            mark(connection, retention.max_age * 1e9, now, wall_ns, is_first=not self._is_marked)
            count = delete_old(connection, retention, favored, now, self._latest, limit)
        self._is_marked = True
        return count

    def evict(self, retention: Retention, limit: int, favored: str = "[]") -> list[Evicted]:
        """Delete some events of the peers with the most data, if the inbox is too large; see `retention.evict`.

        One call takes only a moment: call it again until it returns an empty list.

        Raises:
            InboxError: nothing was deleted.
        """
        with self._writing(is_durable=False) as connection:
            return evict(connection, self.positions, retention, favored, self._latest, limit)

    def consumers(self) -> list[tuple[str, int, int]]:
        """Return the name, position and time of the last acknowledgement of each consumer. Raises InboxError."""
        return self._read(read_consumers)

    def open_consumer(self, name: str, position: int, now_ns: int) -> int:
        """Return the position of a consumer; create it at `position` if it does not exist. Raises InboxError."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO consumers VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (name, position, now_ns)
            )
            return number(connection.execute("SELECT position FROM consumers WHERE name = ?", (name,)).get)

    def advance(self, name: str, position: int, now_ns: int) -> int | None:
        """Advance a consumer, never back; return its position; None: it does not exist. Raises InboxError."""
        # Not durable: if the power fails, the consumer gets some messages twice, which the contract allows.
        with self._writing(is_durable=False) as connection:
            now = connection.execute(
                "UPDATE consumers SET position = max(position, ?), updated_ns = ? WHERE name = ? RETURNING position",
                (position, now_ns, name),
            ).get
            return None if now is None else number(now)

    def delete_consumer(self, name: str) -> bool:
        """Delete a consumer; return whether it existed. Raises InboxError."""
        with self._writing() as connection:
            connection.execute("DELETE FROM consumers WHERE name = ?", (name,))
            return connection.changes() > 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._is_closed = True
            self._readers.close()
            if self._writer is not None:
                self._writer.close(True)
                self._writer = None
            self._release()

    def _are_stored(self, connection: apsw.Connection, latest: int, arrivals: Sequence[Arrival]) -> bool:
        """Whether the newest events in the file, which we do not know, are the first of the arrivals."""
        count = latest - self._latest
        found = read_chunk(
            connection, self.positions, _EVERYTHING, self._latest, latest, count, 1 << 62
        ).events
        return count <= len(arrivals) and [one.arrival for one in found] == [
            one._replace(id="") for one in arrivals[:count]
        ]

    def _open(self) -> None:
        try:
            self._open_writer()
        except (apsw.NotADBError, apsw.CorruptError):
            raise
        except (apsw.Error, OSError):
            # It cannot be written, e.g. because the disk is full. Perhaps it can be read.
            if not self._path.is_file():
                raise
            with suppress(apsw.Error):
                self._readers = open_read_only(self._path)
                with self._readers.borrow() as connection:
                    version = version_of(connection)
                check_version(version, len(self._steps))
                if version == len(self._steps):
                    return
            raise

    def _open_writer(self) -> None:
        self._file_lock = self._file_lock or FileLock(self._path)
        try:
            connection = open_writer(self._path)
            try:
                migrate(connection, self._steps)
                self._in_place = InPlace(self._path)
                self._page_size = number(connection.pragma("page_size"))
            except BaseException:
                connection.close(True)
                raise
        except BaseException:
            self._release()
            raise
        self._writer = connection
        self._is_durable = None
        self._readers.close()
        self._readers = Readers(self._path)

    def _release(self) -> None:
        if self._file_lock is not None:
            self._file_lock.release()
            self._file_lock = None

    def _read(self, job: Callable[[apsw.Connection], T]) -> T:
        with inbox_errors(self._path):
            if self._is_closed:
                raise InboxError(f"inbox {self._path}: it is closed")
            with self._readers.borrow() as connection:
                return job(connection)

    @contextmanager
    def _writing(self, *, is_durable: bool = True) -> Iterator[apsw.Connection]:
        """Run one transaction; if it is durable, it is on the disk afterwards."""
        with self._lock, inbox_errors(self._path):
            if self._is_closed:
                raise InboxError(f"inbox {self._path}: it is closed")
            if self._writer is None:
                self._open_writer()
            connection = self._writer
            assert connection is not None  # else opening has raised
            self._check_in_place()
            if is_durable is not self._is_durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
                self._is_durable = is_durable
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                reserve_space(connection, self._page_size)
                self._commit(connection)
            except BaseException:
                self._numbers.forget()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                empty_log(connection)  # on a full disk, deleting needs space in the log
                raise

    def _commit(self, connection: apsw.Connection) -> None:
        connection.execute("COMMIT")

    def _check_in_place(self) -> None:
        assert self._in_place is not None  # it comes with the connection for writing
        self._in_place.check()
