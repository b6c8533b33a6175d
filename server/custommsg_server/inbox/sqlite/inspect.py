"""Checks an inbox without changing it, even while a gateway uses it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.errors import inbox_errors
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import (
    read_chunk,
    read_consumers,
    read_held,
    read_inbox_id,
    read_latest,
)
from custommsg_server.inbox.sqlite.schema import STEPS
from custommsg_server.storage.files import (
    FileInUseError,
    FileLock,
    RemovedError,
    check_not_emptied,
    open_read_only,
)
from custommsg_server.storage.migration import check_version, version_of

_NEWEST: Final = 100
"""How many of the newest sequence numbers are read, as a sample."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of an inbox."""

    exists: bool
    in_use: bool
    """Whether a gateway uses it now."""
    free: int
    """Bytes free on its disk."""


def look_at(path: Path) -> Seen:
    """Check the inbox at `path`, or the place where it would be created.

    Raises:
        InboxError: it cannot be used; the message says why, and what to do.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InboxError(
            f"inbox {path}: {folder} cannot be written; let this user write to it, or set another data_dir"
        )
    with inbox_errors(path):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if not path.exists():
            if Path(f"{path}-lock").exists() and _is_locked(path):
                raise RemovedError
            return Seen(exists=False, in_use=False, free=free)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
        check_not_emptied(path)
        readers = open_read_only(path)
        try:
            with readers.borrow() as connection:
                version = version_of(connection)
                check_version(version, len(STEPS))
                if version:
                    positions, latest = Positions(read_inbox_id(connection)), read_latest(connection)
                    after = max(0, latest - _NEWEST)
                    read_chunk(connection, positions, Filter(), after, latest, _NEWEST, 1 << 62)
                    read_held(connection)
                    damage = str(connection.execute("PRAGMA quick_check(1)").get)
                    if damage != "ok":
                        raise apsw.CorruptError(damage)
                    read_consumers(connection)
        finally:
            readers.close()
        return Seen(exists=True, in_use=_is_locked(path), free=free)


def _is_locked(path: Path) -> bool:
    try:
        FileLock(path).release()
    except FileInUseError:
        return True
    return False
