"""Errors of SQLite and of the file system, with advice on what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from custommsg_server.inbox.port import InboxError

MOVE_AWAY: Final = "stop the gateway, move the file away, and start it again: it creates a new inbox"
"""What to do with a file that cannot be used."""

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (apsw.FullError, "the disk is full; free some space, or set a lower inbox_max_mb"),
    (apsw.ReadOnlyError, "it cannot be written; check its permissions, and whether its disk is read-only"),
    (apsw.PermissionsError, "access is denied; check its permissions and its owner"),
    (apsw.NotADBError, f"it is not an inbox, or it is damaged; {MOVE_AWAY}"),
    (apsw.CorruptError, f"it is damaged; {MOVE_AWAY}"),
    (apsw.BusyError, "another program has locked it; end that program"),
    (apsw.LockedError, "another program has locked it; end that program"),
    (
        apsw.CantOpenError,
        "it cannot be opened; check its directory, its permissions and the space on its disk",
    ),
    (apsw.IOError, "its disk reports an error; check the disk and the space on it"),
    (apsw.Error, "SQLite reports an error; see the error in brackets"),
    (FileNotFoundError, "its directory does not exist; create it, or set another data_dir"),
    (PermissionError, "access is denied; check its permissions and its owner, and those of its directory"),
    (OSError, "the system reports an error; see the error in brackets"),
    (UnicodeDecodeError, f"it is damaged; {MOVE_AWAY}"),
)


@contextmanager
def inbox_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file at `path` into InboxErrors."""
    try:
        yield
    except (apsw.Error, OSError, UnicodeDecodeError) as error:
        raise InboxError(_message(path, error)) from error


def _message(path: Path, error: Exception) -> str:
    advice = next(advice for kind, advice in _ADVICE if isinstance(error, kind))
    detail = error.strerror if isinstance(error, OSError) else error
    return f"inbox {path}: {advice} ({detail})"
