"""The inbox in one SQLite file: one connection writes, others read what is committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import apsw

from custommsg_server.inbox.port import Arrival, Consumer, Event, Kind, Range, Retention, StoreError
from custommsg_server.inbox.sqlite.errors import store_errors
from custommsg_server.inbox.sqlite.files import (
    FileLock,
    Readers,
    empty_log,
    open_read_only,
    open_writer,
    reserve_space,
)
from custommsg_server.inbox.sqlite.schema import STEPS, check_version, migrate, version_of

T = TypeVar("T")

_KINDS: Final = {kind.value: kind for kind in Kind}
_ROW: Final = "(?, ?, ?, ?, ?, ?)"
# Each statement hands Python's lock to the event loop and has to wait to get it back: under load, one
# statement for many rows is several times as fast as one for each.
_INSERTS: Final = tuple(
    (rows, f"INSERT INTO events VALUES {', '.join([_ROW] * rows)}")  # noqa: S608 -- nothing but question marks
    for rows in (128, 16, 1)
)
_RANGE: Final = """
    SELECT (SELECT sequence FROM events ORDER BY sequence LIMIT 1),
           (SELECT time_ns FROM events ORDER BY sequence LIMIT 1),
           (SELECT seq FROM sqlite_sequence WHERE name = 'events'),
           ((SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count))
               * (SELECT page_size FROM pragma_page_size)
"""
_EVENT_OVERHEAD: Final = 64
"""Bytes that an event takes beside its message, about."""
_PRUNE_BYTES: Final = 4 << 20
"""Bytes that are forgotten at once at most: about 10 ms."""


class SqliteStore:
    """Keeps events in an SQLite file; see `port.Store`.

    The size of the inbox is that of the pages in use: free ones are used again before the file grows. When
    the file cannot be written, what it holds can be read, and each `append` tries again to write.

    Args:
        path: the file; it is made if there is none, readable by its owner only. `<path>-wal` and
            `<path>-shm` are part of it, `<path>-lock` keeps a second gateway away.

    Raises:
        StoreError: the file can be neither written nor read, or another gateway uses it.
    """

    def __init__(self, path: Path, *, steps: Sequence[str] = STEPS) -> None:
        self._path = path
        self._steps = steps
        self._lock = threading.Lock()
        self._file_lock: FileLock | None = None
        self._writer: apsw.Connection | None = None
        self._readers = Readers(path)
        self._is_closed = False
        try:
            with store_errors(path):
                self._open()
            self._inbox_id = self._read(_read_inbox_id)
        except BaseException:
            self.close()
            raise

    @property
    def inbox_id(self) -> str:
        """See `port.Store`."""
        return self._inbox_id

    def append(self, arrivals: Sequence[Arrival]) -> list[Event]:
        """See `port.Store`."""
        with self._writing() as connection:
            first = _latest(connection) + 1
            events = [Event(sequence, arrival) for sequence, arrival in enumerate(arrivals, first)]
            at = 0
            for rows, statement in _INSERTS:
                while len(events) - at >= rows:
                    connection.execute(statement, _row_values(events[at : at + rows]))
                    at += rows
        return events

    def read(self, after: int, limit: int, max_size: int) -> list[Event]:
        """See `port.Store`."""
        return self._read(lambda connection: _read_events(connection, after, limit, max_size))

    def range(self) -> Range:
        """See `port.Store`."""
        return self._read(_read_range)

    def prune(self, retention: Retention, now_ns: int, limit: int) -> int:
        """See `port.Store`."""
        # If the power fails, what was forgotten may come back: harmless, and worth not waiting for the disk.
        with self._writing(is_durable=False) as connection:
            excess = _read_range(connection).size - retention.max_size
            too_old = now_ns - retention.max_age * 1e9
            last, count, freed = 0, 0, 0
            for sequence, time_ns, size in connection.execute(
                "SELECT sequence, time_ns, length(message) FROM events ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall():
                if (_number(time_ns) >= too_old and freed >= excess) or freed >= _PRUNE_BYTES:
                    break
                last, count, freed = _number(sequence), count + 1, freed + _number(size) + _EVENT_OVERHEAD
            if count:
                connection.execute("DELETE FROM events WHERE sequence <= ?", (last,))
        return count

    def consumers(self) -> list[Consumer]:
        """See `port.Store`."""
        return self._read(_read_consumers)

    def advance(self, name: str, position: int, now_ns: int) -> int:
        """See `port.Store`."""
        # If the power fails, the consumer gets some messages once more, as it was told it may.
        with self._writing(is_durable=False) as connection:
            return _number(
                connection.execute(
                    "INSERT INTO consumers VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                    "position = max(position, excluded.position), updated_ns = excluded.updated_ns "
                    "RETURNING position",
                    (name, position, now_ns),
                ).get
            )

    def forget(self, name: str) -> bool:
        """See `port.Store`."""
        with self._writing() as connection:
            connection.execute("DELETE FROM consumers WHERE name = ?", (name,))
            return connection.changes() > 0

    def close(self) -> None:
        """See `port.Store`."""
        with self._lock:
            self._is_closed = True
            self._readers.close()
            if self._writer is not None:
                self._writer.close(True)
                self._writer = None
            self._release()

    def _open(self) -> None:
        try:
            self._open_writer()
        except (apsw.NotADBError, apsw.CorruptError):
            raise
        except (apsw.Error, OSError):
            # It cannot be written: a full disk, permissions. What it holds is still of use.
            if not self._path.is_file():
                raise
            with suppress(apsw.Error):
                self._readers = open_read_only(self._path)
                with self._readers.borrow() as connection:
                    version = version_of(connection)
                check_version(self._path, version, len(self._steps))
                if version == len(self._steps):
                    return
            raise

    def _open_writer(self) -> None:
        self._file_lock = self._file_lock or FileLock(self._path)
        try:
            connection = open_writer(self._path)
            try:
                migrate(connection, self._path, self._steps)
                self._inode = self._path.stat().st_ino
            except BaseException:
                connection.close(True)
                raise
        except BaseException:
            self._release()
            raise
        self._writer = connection
        self._readers.close()
        self._readers = Readers(self._path)

    def _release(self) -> None:
        if self._file_lock is not None:
            self._file_lock.release()
            self._file_lock = None

    def _read(self, job: Callable[[apsw.Connection], T]) -> T:
        with store_errors(self._path):
            if self._is_closed:
                raise StoreError(f"inbox {self._path}: it is closed")
            with self._readers.borrow() as connection:
                return job(connection)

    @contextmanager
    def _writing(self, *, is_durable: bool = True) -> Iterator[apsw.Connection]:
        """Run one transaction; it is on the disk afterwards, or will be soon if that is enough."""
        with self._lock, store_errors(self._path):
            if self._is_closed:
                raise StoreError(f"inbox {self._path}: it is closed")
            if self._writer is None:
                self._open_writer()
            connection = self._writer
            assert connection is not None  # else opening has raised
            self._check_in_place()
            connection.execute("PRAGMA synchronous = FULL" if is_durable else "PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                reserve_space(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                empty_log(connection)  # else, on a full disk, it would have no room for forgetting something
                raise

    def _check_in_place(self) -> None:
        """Find out that somebody removed the file: what we write would be gone with the process."""
        try:
            in_place = self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise StoreError(f"inbox {self._path}: it was removed while in use; start the gateway again")


def _latest(connection: apsw.Connection) -> int:
    return _number(
        connection.execute("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)").get
    )


def _row_values(events: Sequence[Event]) -> list[int | bytes]:
    values: list[int | bytes] = []
    for event in events:
        a = event.arrival
        values += (event.sequence, a.kind.value, a.time_ns, a.node_id, a.message, a.lost)
    return values


def _read_inbox_id(connection: apsw.Connection) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE name = 'inbox_id'").get)


def _read_range(connection: apsw.Connection) -> Range:
    [[earliest, oldest_ns, latest, size]] = connection.execute(_RANGE).fetchall()
    latest = _number(latest or 0)
    if earliest is None:
        return Range(latest + 1, latest, 0, _number(size), 0)
    earliest = _number(earliest)
    return Range(earliest, latest, latest + 1 - earliest, _number(size), _number(oldest_ns))


def _read_events(connection: apsw.Connection, after: int, limit: int, max_size: int) -> list[Event]:
    events: list[Event] = []
    room = max_size
    cursor = connection.execute(
        "SELECT sequence, kind, time_ns, node_id, message, lost FROM events "
        "WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (after, limit),
    )
    try:
        for row in cursor:
            match row:
                case (int(sequence), int(kind), int(time_ns), bytes(node_id), bytes(message), int(lost)) if (
                    kind in _KINDS and (not events or sequence == events[-1].sequence + 1)
                ):
                    room -= len(message)
                    if room < 0 and events:
                        break
                    events.append(Event(sequence, Arrival(_KINDS[kind], time_ns, node_id, message, lost)))
                case _:
                    raise apsw.CorruptError("an event is not as it was written")
    finally:
        cursor.close()  # else it would hold on to a state of the file that the log can then never let go of
    return events


def _read_consumers(connection: apsw.Connection) -> list[Consumer]:
    rows = connection.execute("SELECT name, position, updated_ns FROM consumers ORDER BY name").fetchall()
    return [
        Consumer(str(name), _number(position), _number(updated_ns)) for name, position, updated_ns in rows
    ]


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise apsw.CorruptError("a number is not as it was written")
    return value
