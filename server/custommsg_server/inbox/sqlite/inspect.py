"""Look at an inbox without changing it, whether a gateway uses it or not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from custommsg_server.inbox.port import StoreError
from custommsg_server.inbox.sqlite.errors import store_errors
from custommsg_server.inbox.sqlite.files import FileLock, open_read_only
from custommsg_server.inbox.sqlite.schema import check_version, version_of

_QUERIES: Final = (
    "SELECT count(*) FROM (SELECT sequence, time_ns, message FROM events ORDER BY sequence DESC LIMIT 100)",
    "SELECT count(*) FROM consumers",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an inbox."""

    exists: bool
    in_use: bool
    """Whether a gateway uses it now."""
    free: int
    """Bytes free on its disk."""


def look_at(path: Path) -> Seen:
    """Look at the inbox at `path`, or at where it would be made.

    Raises:
        StoreError: it cannot be used; the message says why, and what to do.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"inbox {path}: {folder} cannot be written; give it to this user, or set data_dir")
    with store_errors(path):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if not path.exists():
            return Seen(exists=False, in_use=False, free=free)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
        readers = open_read_only(path)
        try:
            with readers.borrow() as connection:
                version = version_of(connection)
                check_version(path, version)
                for query in _QUERIES if version else ():
                    connection.execute(query).fetchall()
        finally:
            readers.close()
        return Seen(exists=True, in_use=_is_locked(path), free=free)


def _is_locked(path: Path) -> bool:
    try:
        FileLock(path).release()
    except StoreError:
        return True
    return False
