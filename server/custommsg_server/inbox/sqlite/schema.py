"""The tables of an SQLite inbox, and the migrations from each version to the next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from custommsg_server.inbox.port import InboxError

BLOCK: Final = 10
"""Events are indexed in blocks of 2 ** BLOCK by sequence number; see below."""

STEPS: Final[tuple[str, ...]] = (
    # 1:
    # - meta.floor is the highest sequence number that the retention has deleted. All events after it are there, except
    #   evicted ones of single peers.
    # - peers has the number and size of each peer's events, and the sequence number of the interruption that replaces
    #   evicted ones. The row with the empty id counts events that concern all peers.
    # - marks has the time of the age clock and of the machine's clock when the events up to a sequence number were
    #   stored.
    # - AUTOINCREMENT stores the last sequence number separately, so that none is used twice, even if all rows are
    #   deleted.
    # - The indexes begin with the block, so that a commit changes only a few pages at their end. With an index by type
    #   or peer alone, each event would change a page somewhere in the middle, which costs ten times as much. A reader
    #   looks into each block once, which takes a microsecond for a thousand events.
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('inbox_id', lower(hex(randomblob(16)))), ('floor', 0);
    CREATE TABLE nodes (id INTEGER PRIMARY KEY, node_id BLOB NOT NULL UNIQUE) STRICT;
    CREATE TABLE peers (
        id INTEGER PRIMARY KEY, peer_id BLOB NOT NULL UNIQUE, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
        evicted INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE marks (
        age INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, wall_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        peer INTEGER NOT NULL,
        node INTEGER NOT NULL,
        type INTEGER,
        kind INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        message BLOB NOT NULL,
        lost INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX events_by_type ON events (sequence >> 10, coalesce(type, -kind));
    CREATE INDEX events_by_peer ON events (sequence >> 10, peer);
    CREATE TABLE consumers (
        name TEXT PRIMARY KEY, position INTEGER NOT NULL, updated_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)
"""The migration from version n to n + 1. A released step is never changed; a new one is added."""


def version_of(connection: apsw.Connection) -> int:
    """Return the version of the tables in a file; 0 if there are no tables yet."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version


def check_version(path: Path, version: int, known: int = len(STEPS)) -> None:
    """Refuse a file of a newer gateway. Raises InboxError: it is newer."""
    if version > known:
        raise InboxError(
            f"inbox {path}: its version is {version}, and this gateway supports versions up to {known}; "
            "run the newer gateway again, or move the file away"
        )


def migrate(connection: apsw.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Migrate the tables to the newest version, one step and one transaction at a time.

    Raises:
        InboxError: the file is of a newer gateway.
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
