"""The tables of an SQLite inbox, and the migrations from each version to the next."""

from __future__ import annotations

from typing import Final

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
