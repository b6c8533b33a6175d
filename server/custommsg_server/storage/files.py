"""Opens the file of an SQLite engine: one connection that writes, and a pool of connections that read."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

BUSY_MS = 500
"""How long to wait for a lock that another connection holds, in milliseconds."""

_WAL_CHECKPOINT = 1000
"""Pages in the write-ahead log after which it is copied to the file, beside the readers."""
_WAL_RESTART = 8 * _WAL_CHECKPOINT
"""Pages after which the copy waits for readers: a log that is always being read would grow without end."""
_WAL_KEEP = _WAL_CHECKPOINT * 4096
"""Bytes of the log that stay allocated: with them, deleting can make room even when the disk is full."""
_GROWTH = 256 << 10
"""Bytes by which the file grows."""


class FileInUseError(Exception):
    """Another gateway uses the file."""


class FileLock:
    """Keeps other gateways away from the file at `path`.

    Two gateways on one file would each miss what the other stores. The lock is a file of its own, because
    closing a second handle of the database file would drop SQLite's locks. The kernel releases it when the
    process ends, however that happens.

    Raises:
        FileInUseError: another process uses it.
        OSError: the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise FileInUseError from None
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let others use the file."""
        os.close(self._file)


def check_not_emptied(path: Path) -> None:
    """Leave a file alone that somebody has emptied: SQLite would take it for a new one, and delete its log.

    Raises:
        apsw.CorruptError: it is empty, and its log is not.
    """
    with suppress(FileNotFoundError):
        if not path.stat().st_size and Path(f"{path}-wal").stat().st_size:
            raise apsw.CorruptError("it is empty, and its write-ahead log is not")


def open_writer(path: Path) -> apsw.Connection:
    """Open the file for writing; make it, readable by its owner only, if it does not exist.

    Raises:
        apsw.Error, OSError: it cannot be opened.
    """
    check_not_emptied(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _guard(connection)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise apsw.CantOpenError("its file system has no shared memory, which a write-ahead log needs")
        connection.pragma("synchronous", "full")
        connection.pragma("journal_size_limit", _WAL_KEEP)
        connection.set_wal_hook(_keep_log_short)
        _control(connection, apsw.SQLITE_FCNTL_CHUNK_SIZE, ctypes.c_int(_GROWTH))
    except BaseException:
        connection.close(True)
        raise
    return connection


def reserve_space(connection: apsw.Connection, page_size: int) -> None:
    """Allocate the space that the file will need for what the running transaction has changed.

    Without it, on a full disk, a commit could still fit into the log while the log does not fit into the file;
    and with a log that cannot be emptied, nothing can be deleted to make room.

    Raises:
        apsw.FullError: there is no such space.
    """
    size = int(str(connection.pragma("page_count"))) * page_size
    try:
        _control(connection, apsw.SQLITE_FCNTL_SIZE_HINT, ctypes.c_int64(size))
    except apsw.IOError as error:
        raise apsw.FullError("no space for the file to grow") from error


def empty_log(connection: apsw.Connection) -> None:
    """Copy the log to the file, if that is possible now, so that the log is used from its start again."""
    with suppress(apsw.Error):
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)


class Readers:
    """A pool of connections that only read, one for each thread that reads at once.

    Args:
        path: the file.
        is_immutable: nobody can write the file, so it is read without locks and without shared memory.
    """

    def __init__(self, path: Path, *, is_immutable: bool = False) -> None:
        # `%`, `?` and `#` have a meaning in such an address.
        self._address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_immutable else ''}"
        self._idle: deque[apsw.Connection] = deque()

    @contextmanager
    def borrow(self) -> Iterator[apsw.Connection]:
        """Lend a connection.

        Raises:
            apsw.Error: no connection can be opened.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that are not lent."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close(True)

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(self._address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            _guard(connection)
        except BaseException:
            connection.close(True)
            raise
        return connection


def open_read_only(path: Path) -> Readers:
    """Open a file for reading that cannot be written now.

    Raises:
        apsw.Error: it cannot be read either.
    """
    readers = Readers(path)
    try:
        _try(readers)
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, apsw.FullError):
        # Reading a write-ahead log needs shared memory, which cannot be made here. Without a log, everything
        # is in the file.
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise
        readers = Readers(path, is_immutable=True)
        _try(readers)
    return readers


def _try(readers: Readers) -> None:
    with readers.borrow() as connection:
        connection.pragma("schema_version")


def _guard(connection: apsw.Connection) -> None:
    """Protect us from a damaged or forged file."""
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)


def _control(connection: apsw.Connection, operation: int, argument: ctypes.c_int | ctypes.c_int64) -> None:
    connection.file_control("main", operation, ctypes.addressof(argument))


def _keep_log_short(connection: apsw.Connection, name: str, pages: int) -> int:
    if pages >= _WAL_CHECKPOINT:
        mode = apsw.SQLITE_CHECKPOINT_RESTART if pages >= _WAL_RESTART else apsw.SQLITE_CHECKPOINT_PASSIVE
        # What is committed is committed: a checkpoint that fails now is tried again after the next commit.
        with suppress(apsw.Error):
            connection.wal_checkpoint(name, mode)
    return int(apsw.SQLITE_OK)
