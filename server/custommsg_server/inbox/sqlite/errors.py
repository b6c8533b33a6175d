"""Errors of SQLite and of the file system, with advice on what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from custommsg_server.inbox.port import InboxError

MOVE_AWAY: Final = "stop the gateway, move the file away, and start it again: a new inbox is made"
"""What to do with a file that is of no use."""

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (apsw.FullError, "the disk is full; free some space, or keep less (retention)"),
    (apsw.ReadOnlyError, "it cannot be written; check its permissions and whether its disk is read-only"),
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
    (apsw.Error, "it cannot be used as an inbox"),
    (FileNotFoundError, "its directory does not exist; make it, or set another path"),
    (PermissionError, "access is denied; check its permissions and its owner, and those of its directory"),
    (OSError, "it cannot be used"),
    (UnicodeDecodeError, f"it is damaged; {MOVE_AWAY}"),
)


@contextmanager
def inbox_errors(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with the file at `path` into an InboxError."""
    try:
        yield
    except (apsw.Error, OSError, UnicodeDecodeError) as error:
        raise InboxError(_tell(path, error)) from error


def _tell(path: Path, error: Exception) -> str:
    advice = next(advice for kind, advice in _ADVICE if isinstance(error, kind))
    detail = error.strerror if isinstance(error, OSError) else error
    return f"inbox {path}: {advice} ({detail})"
