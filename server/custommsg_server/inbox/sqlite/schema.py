"""The tables of the SQLite store, and the way from each version of them to the next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from custommsg_server.inbox.port import StoreError

STEPS: Final[tuple[str, ...]] = (
    # 1: AUTOINCREMENT keeps the last sequence number apart from the rows, so that none is used twice even
    # after all rows are gone.
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('inbox_id', lower(hex(randomblob(16))));
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        kind INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        node_id BLOB NOT NULL,
        message BLOB NOT NULL,
        lost INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE consumers (
        name TEXT PRIMARY KEY, position INTEGER NOT NULL, updated_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)
"""What leads from version n to n + 1. A step that was released is never changed; a new one is added."""


def version_of(connection: apsw.Connection) -> int:
    """Return the version of the tables in a file; 0 if it has none yet."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version


def check_version(path: Path, version: int, known: int = len(STEPS)) -> None:
    """Refuse a file that a newer gateway has written.

    Raises:
        StoreError: it is newer.
    """
    if version > known:
        raise StoreError(
            f"inbox {path}: it has version {version}, and this gateway knows versions up to {known}; "
            "run the newer gateway again, or move the file away"
        )


def migrate(connection: apsw.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Bring the tables to the newest version, one step and one transaction at a time.

    Raises:
        StoreError: a newer gateway has written the file.
        apsw.Error: a step failed; the file keeps the version it had.
    """
    version = version_of(connection)
    check_version(path, version, len(steps))
    for step, statements in enumerate(steps[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(statements)
            connection.execute(f"PRAGMA user_version = {step}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
