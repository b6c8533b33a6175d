"""Advice on errors of SQLite and of the file system."""

from __future__ import annotations

from typing import Final

import apsw

from custommsg_server.storage.files import FileInUseError, RemovedError, TruncatedError

MOVE_AWAY: Final = "stop the gateway, move the file away, and start it again: it creates a new one"
"""What to do with a file that cannot be used."""

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (FileInUseError, "another gateway uses it; stop that gateway, or set another data_dir for this one"),
    (RemovedError, "it was removed while in use; start the gateway again"),
    (TruncatedError, f"it was truncated while in use; {MOVE_AWAY}"),
    (apsw.FullError, "the disk is full; free some space, or set a lower inbox_max_mb"),
    (apsw.ReadOnlyError, "it cannot be written; check its permissions, and whether its disk is read-only"),
    (apsw.PermissionsError, "access is denied; check its permissions and its owner"),
    (apsw.NotADBError, f"it is not an {{what}}, or it is damaged; {MOVE_AWAY}"),
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

EXPECTED: Final = tuple(kind for kind, _ in _ADVICE)
"""The errors that there is advice on."""


def advice_on(error: Exception, what: str) -> str:
    """Return what is wrong and what to do, with what SQLite or the system said; `what` is an inbox or an outbox."""
    advice = next(advice for kind, advice in _ADVICE if isinstance(error, kind)).format(what=what)
    detail = error.strerror if isinstance(error, OSError) else error
    return f"{advice} ({detail})" if str(detail) else advice
