"""Opens the file of an SQLite engine: one connection for writing, and a pool of connections for reading."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from custommsg_server.storage.values import number

BUSY_MS = 500
"""How long to wait for a lock of another connection, in milliseconds."""

_WAL_CHECKPOINT = 1000
"""Pages in the write-ahead log after which it is copied to the file; readers continue meanwhile."""
_WAL_RESTART = 8 * _WAL_CHECKPOINT
"""Pages after which the copy waits for readers: a log that is always being read would grow without limit."""
_WAL_KEEP = _WAL_CHECKPOINT * 4096
"""Bytes of the log that stay allocated, so that events can be deleted even when the disk is full."""
_GROWTH = 256 << 10
"""Bytes by which the file grows."""


class FileInUseError(Exception):
    """Another gateway uses the file."""


class NoFolderError(Exception):
    """The file's folder does not exist and cannot be created; the text says what to do."""


def make_folder(folder: Path, make_parents: bool, what: str) -> None:
    """Create the folder of a file, for its owner only, if it does not exist.

    Args:
        folder: the folder.
        make_parents: whether to create all its parents; if not, only the last folder.
        what: an inbox or an outbox, for the error.

    Raises:
        NoFolderError: it cannot be created.
    """
    try:
        folder.mkdir(parents=make_parents, exist_ok=True, mode=0o700)
    except FileNotFoundError:
        raise NoFolderError(
            f"{folder.parent} does not exist yet; start lightningd, which creates it, or set data_dir"
        ) from None
    except OSError as error:
        raise NoFolderError(
            f"cannot create {folder} for the {what} ({error.strerror}); set another data_dir"
        ) from None


class RemovedError(Exception):
    """The file was removed or replaced while in use."""


class TruncatedError(Exception):
    """The file was truncated while in use."""


class InPlace:
    """Finds out that an open file at `path` is no longer there: what is written would be lost, or damage it further."""

    def __init__(self, path: Path) -> None:
        self._path = path
        opened = path.stat()
        self._inode, self._size = opened.st_ino, opened.st_size

    def check(self) -> None:
        """Check that nobody has removed or truncated the file. Raises RemovedError, TruncatedError."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            raise RemovedError from None
        if now.st_ino != self._inode:
            raise RemovedError
        if now.st_size < self._size:
            raise TruncatedError
        self._size = now.st_size


class FileLock:
    """Prevents other gateways from using the file at `path`.

    Two gateways on one file would each miss the events of the other. The lock is a separate file, because closing a
    second handle of the database file would drop SQLite's locks. The kernel releases it when the process ends.

    Raises:
        FileInUseError: another process uses it.
        OSError: the lock file cannot be created.
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
    """Refuse an emptied file: SQLite would take it for a new one, and delete its write-ahead log.

    Raises:
        apsw.CorruptError: it is empty, and its log is not.
    """
    with suppress(FileNotFoundError):
        if not path.stat().st_size and Path(f"{path}-wal").stat().st_size:
            raise apsw.CorruptError("it is empty, and its write-ahead log is not")


def open_writer(path: Path) -> apsw.Connection:
    """Open the file for writing; create it, readable by its owner only, if it does not exist.

    Raises:
        apsw.Error, OSError: it cannot be opened.
    """
    check_not_emptied(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _guard(connection)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise apsw.CantOpenError(
                "its file system does not support the shared memory that a write-ahead log needs"
            )
        connection.pragma("synchronous", "full")
        connection.pragma("journal_size_limit", _WAL_KEEP)
        connection.set_wal_hook(_keep_log_short)
        _control(connection, apsw.SQLITE_FCNTL_CHUNK_SIZE, ctypes.c_int(_GROWTH))
    except BaseException:
        connection.close(True)
        raise
    return connection


def reserve_space(connection: apsw.Connection, page_size: int) -> None:
    """Allocate the space in the file for the changes of the current transaction.

    Otherwise, on a full disk, a commit could fit into the log, but the log not into the file. Then the log could not
    be emptied, and nothing could be deleted to free space.

    Raises:
        apsw.FullError: there is no such space.
    """
    size = number(connection.pragma("page_count")) * page_size
    try:
        _control(connection, apsw.SQLITE_FCNTL_SIZE_HINT, ctypes.c_int64(size))
    except apsw.IOError as error:
        raise apsw.FullError("no space for the file to grow") from error


def empty_log(connection: apsw.Connection) -> None:
    """Copy the log to the file, if possible, so that the log is used again from its start."""
    with suppress(apsw.Error):
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)


class Readers:
    """A pool of connections for reading, one for each thread that reads at the same time.

    Args:
        path: the file.
        is_immutable: the file cannot be written, so it is read without locks and without shared memory.
    """

    def __init__(self, path: Path, *, is_immutable: bool = False) -> None:
        # A URI, because of its parameters: `as_uri` escapes `%`, `?` and `#` in the path.
        self._address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_immutable else ''}"
        self._idle: deque[apsw.Connection] = deque()

    @contextmanager
    def borrow(self) -> Iterator[apsw.Connection]:
        """Lend a connection. Raises apsw.Error: no connection can be opened."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
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
    """Open a file that can only be read now. Raises apsw.Error: it cannot be read either."""
    readers = Readers(path)
    try:
        _try(readers)
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, apsw.FullError):
        # Reading a write-ahead log needs shared memory, which cannot be created here. An empty log is not needed.
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
    """Protect the gateway against a damaged or forged file."""
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)


def _control(connection: apsw.Connection, operation: int, argument: ctypes.c_int | ctypes.c_int64) -> None:
    connection.file_control("main", operation, ctypes.addressof(argument))


def _keep_log_short(connection: apsw.Connection, name: str, pages: int) -> int:
    if pages >= _WAL_CHECKPOINT:
        mode = apsw.SQLITE_CHECKPOINT_RESTART if pages >= _WAL_RESTART else apsw.SQLITE_CHECKPOINT_PASSIVE
        # The commit is done: a checkpoint that fails now is tried again after the next one.
        with suppress(apsw.Error):
            connection.wal_checkpoint(name, mode)
    return int(apsw.SQLITE_OK)
