"""The tables of an SQLite outbox, and the steps from each version of them to the next.

The books are kept by triggers, so that no statement can forget them: how much each caller has waiting, in all and for
each peer, which credentials are still needed, and the number of each ending.
"""

from __future__ import annotations

from typing import Final

BLOCK: Final = 10
"""Waiting entries are indexed in blocks of 2 ** BLOCK by id: so a commit changes few pages, as in the inbox."""

STEPS: Final[tuple[str, ...]] = (
    # 1:
    # - meta: `endings` is the number of the last ending, `told` that of the last one that was told; `age` and `wall`
    #   are what the age clock and the machine's clock said last.
    # - credentials are what callers showed; one is deleted as soon as nothing waits that was enqueued with it.
    # - entries: `expires` and `ended` are times of the age clock, the other times are those of the machine. The message
    #   is the last column, so that listing others does not read it. State numbers are those of domain/outbox.py.
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES
        ('outbox_id', lower(hex(randomblob(16)))), ('endings', 0), ('told', 0), ('age', 0), ('wall', 0);
    CREATE TABLE callers (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, waiting INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE credentials (
        id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, waiting INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE shares (
        peer_id BLOB NOT NULL, caller INTEGER NOT NULL, waiting INTEGER NOT NULL, bytes INTEGER NOT NULL,
        PRIMARY KEY (peer_id, caller)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state INTEGER NOT NULL,
        peer_id BLOB NOT NULL,
        caller INTEGER NOT NULL,
        credential INTEGER NOT NULL,
        key TEXT,
        at_least_once INTEGER NOT NULL,
        is_direct INTEGER NOT NULL,
        size INTEGER NOT NULL,
        type INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        changed_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        ended INTEGER,
        ending INTEGER,
        message BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX entries_by_key ON entries (caller, key) WHERE key IS NOT NULL;
    CREATE INDEX entries_waiting ON entries (id >> 10, peer_id) WHERE state = 1;
    CREATE INDEX entries_expiring ON entries (expires) WHERE state = 1;
    CREATE INDEX entries_sending ON entries (id) WHERE state = 2;
    CREATE INDEX entries_by_ending ON entries (ending) WHERE ending IS NOT NULL;
    CREATE INDEX entries_ended ON entries (caller, ending) WHERE ending IS NOT NULL;

    CREATE TRIGGER entry_added AFTER INSERT ON entries WHEN NOT new.is_direct BEGIN
        INSERT INTO shares VALUES (new.peer_id, new.caller, 1, new.size)
            ON CONFLICT DO UPDATE SET waiting = waiting + 1, bytes = bytes + excluded.bytes;
        UPDATE callers SET waiting = waiting + 1, bytes = bytes + new.size WHERE id = new.caller;
        UPDATE credentials SET waiting = waiting + 1 WHERE id = new.credential;
    END;
    CREATE TRIGGER entry_ended AFTER UPDATE OF state ON entries WHEN old.state <= 2 AND new.state > 2 BEGIN
        UPDATE meta SET value = value + 1 WHERE name = 'endings';
        UPDATE entries SET ending = (SELECT value FROM meta WHERE name = 'endings') WHERE id = new.id;
        UPDATE callers SET ended = ended + 1 WHERE id = new.caller;
    END;
    CREATE TRIGGER waiting_ended AFTER UPDATE OF state ON entries
    WHEN NOT new.is_direct AND old.state <= 2 AND new.state > 2 BEGIN
        UPDATE shares SET waiting = waiting - 1, bytes = bytes - new.size
            WHERE peer_id = new.peer_id AND caller = new.caller;
        DELETE FROM shares WHERE peer_id = new.peer_id AND caller = new.caller AND waiting <= 0;
        UPDATE callers SET waiting = waiting - 1, bytes = bytes - new.size WHERE id = new.caller;
        UPDATE credentials SET waiting = waiting - 1 WHERE id = new.credential;
        DELETE FROM credentials WHERE id = new.credential AND waiting <= 0;
    END;
    CREATE TRIGGER entry_deleted AFTER DELETE ON entries WHEN old.ending IS NOT NULL BEGIN
        UPDATE callers SET ended = ended - 1 WHERE id = old.caller;
    END;
    """,
)
"""What leads from version n to n + 1. A step that was released is never changed; a new one is added."""
