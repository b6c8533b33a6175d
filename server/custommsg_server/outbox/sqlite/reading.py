"""Reads an SQLite outbox. Every value read is checked by what it is made into."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import apsw

from custommsg_server.domain.outbox import Ending, Entry, State, Waiting
from custommsg_server.domain.wire import Message
from custommsg_server.outbox.port import Counts, Wanted
from custommsg_server.storage.values import number

_SCANNED: Final = 20_000
"""Entries that a page looks at, at most: some 20 ms."""
_ENTRY: Final = (
    "SELECT e.id, e.peer_id, e.message, e.state, e.reason, coalesce(e.key, ''), coalesce(c.name, ''),"
    " e.at_least_once, e.is_direct, e.attempts, e.created_ns, e.changed_ns, e.expires_ns"
    " FROM entries e LEFT JOIN callers c ON c.id = e.caller"
)
_CHOSEN: Final = """
    WHERE e.id > ?1 AND e.id <= ?2 AND (?3 = '[]' OR e.state IN (SELECT value FROM json_each(?3)))
        AND (?4 = '[]' OR e.peer_id IN (SELECT unhex(value) FROM json_each(?4))) ORDER BY e.id LIMIT ?5
"""
# Blocks that have something waiting, one after the other; in each the index is in the order of the entries.
_WAITING: Final = """
    WITH RECURSIVE blocks (block) AS (
        SELECT (SELECT id >> 10 FROM entries INDEXED BY entries_waiting
            WHERE state = 1 AND id >> 10 >= ?2 >> 10 ORDER BY id >> 10 LIMIT 1)
        UNION ALL
        SELECT (SELECT id >> 10 FROM entries INDEXED BY entries_waiting
            WHERE state = 1 AND id >> 10 > block ORDER BY id >> 10 LIMIT 1)
        FROM blocks WHERE block IS NOT NULL
    )
    SELECT e.id, e.message, coalesce(c.name, ''), coalesce(k.text, ''), e.at_least_once
    FROM blocks CROSS JOIN entries e INDEXED BY entries_waiting
    LEFT JOIN callers c ON c.id = e.caller LEFT JOIN credentials k ON k.id = e.credential
    WHERE e.state = 1 AND e.id >> 10 = block AND e.peer_id = ?1 AND e.id > ?2 LIMIT ?3
"""

TextOf = Callable[[int], str]
"""Returns the text of an id."""


def read_waiting(
    connection: apsw.Connection, text_of: TextOf, peer_id: bytes, after: int, most: int, size: int
) -> list[Waiting]:
    """Return what waits for a peer after an entry, in order; bytes at most, if that is not a single one."""
    found: list[Waiting] = []
    cursor = connection.execute(_WAITING, (peer_id, after, most))
    try:
        for id_, message, caller, credential, at_least_once in cursor:
            raw = _bytes(message)
            size -= len(raw)
            if size < 0 and found:
                break
            found.append(
                Waiting(text_of(number(id_)), Message(raw), str(caller), str(credential), bool(at_least_once))
            )
    finally:
        cursor.close()
    return found


def read_entry(connection: apsw.Connection, text_of: TextOf, id_: int) -> Entry | None:
    """Return an entry; None: there is none."""
    for row in connection.execute(f"{_ENTRY} WHERE e.id = ?", (id_,)):
        return _entry(row, text_of)
    return None


def read_by_key(connection: apsw.Connection, text_of: TextOf, caller: str, key: str) -> Entry | None:
    """Return a caller's entry with a key; None: there is none."""
    for row in connection.execute(f"{_ENTRY} WHERE c.name = ? AND e.key = ?", (caller, key)):
        return _entry(row, text_of)
    return None


def read_page(
    connection: apsw.Connection, text_of: TextOf, wanted: Wanted, after: int, most: int, max_size: int
) -> tuple[list[Entry], int]:
    """Return entries after one, and the number to go on after; 0 if this is the end."""
    last = number(
        connection.execute(
            "SELECT coalesce(max(id), ?1) FROM (SELECT id FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2)",
            (after, _SCANNED),
        ).get
    )
    entries: list[Entry] = []
    cursor = connection.execute(
        _ENTRY + _CHOSEN,
        (
            after,
            last,
            json.dumps([state.value for state in wanted.states]),
            json.dumps([peer_id.hex() for peer_id in wanted.peer_ids]),
            most,
        ),
    )
    end = after
    try:
        for row in cursor:
            entry = _entry(row, text_of)
            max_size -= len(entry.message)
            if max_size < 0 and entries:
                return entries, end
            entries.append(entry)
            end = number(row[0])
    finally:
        cursor.close()
    if len(entries) < most:
        end = last
    is_more = connection.execute("SELECT EXISTS (SELECT 1 FROM entries WHERE id > ?)", (end,)).get
    return entries, end if is_more else 0


def read_endings(connection: apsw.Connection, text_of: TextOf, most: int) -> list[Ending]:
    """Return the first endings that were not told yet."""
    rows = connection.execute(
        "SELECT ending, id, peer_id, type, state, reason, coalesce(key, ''), changed_ns FROM entries"
        " WHERE ending > (SELECT value FROM meta WHERE name = 'told') AND NOT is_direct ORDER BY ending LIMIT ?",
        (most,),
    ).fetchall()
    return [
        Ending(
            number(ending),
            text_of(number(id_)),
            _bytes(peer_id),
            number(type_),
            State(state),
            str(reason),
            str(key),
            number(changed_ns),
        )
        for ending, id_, peer_id, type_, state, reason, key, changed_ns in rows
    ]


def read_peers(connection: apsw.Connection, after: bytes, most: int) -> list[bytes]:
    """Return peers for whom something waits."""
    rows = connection.execute(
        "SELECT DISTINCT peer_id FROM shares WHERE peer_id > ? ORDER BY peer_id LIMIT ?", (after, most)
    ).fetchall()
    return [_bytes(peer_id) for (peer_id,) in rows]


def read_counts(connection: apsw.Connection) -> Counts:
    """Return what is held."""
    [row] = connection.execute(
        "SELECT coalesce(sum(waiting), 0), coalesce(sum(bytes), 0), coalesce(sum(ended), 0), coalesce(("
        " SELECT created_ns FROM entries INDEXED BY entries_waiting WHERE state = 1 ORDER BY id >> 10 LIMIT 1"
        "), 0) FROM callers"
    ).fetchall()
    return Counts(*map(number, row))


def read_meta(connection: apsw.Connection) -> dict[str, int | str]:
    """Return what is stored about the outbox itself."""
    return {str(name): value for name, value in connection.execute("SELECT name, value FROM meta")}


def read_last_id(connection: apsw.Connection) -> int:
    """Return the highest id that was ever used; 0 if none was."""
    return number(
        connection.execute("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0)").get
    )


def _entry(row: tuple[Any, ...], text_of: TextOf) -> Entry:
    id_, peer_id, message, state, reason, key, caller, at_least_once, is_direct, *numbers = row
    attempts, created_ns, changed_ns, expires_ns = map(number, numbers)
    try:
        known = State(state)
    except ValueError:
        raise apsw.CorruptError("an entry is not as it was written") from None
    return Entry(
        id=text_of(number(id_)),
        peer_id=_bytes(peer_id),
        message=_bytes(message),
        state=known,
        reason=str(reason),
        key=str(key),
        caller=str(caller),
        at_least_once=bool(at_least_once),
        is_direct=bool(is_direct),
        attempts=attempts,
        created_ns=created_ns,
        changed_ns=changed_ns,
        expires_ns=expires_ns,
    )


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise apsw.CorruptError("an entry is not as it was written")
    return value
