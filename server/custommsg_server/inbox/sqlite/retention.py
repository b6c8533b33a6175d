"""Deletes events from an SQLite inbox: those that are too old and, if it is too large, those of the largest peers.

The age of an event is the time since it was stored, measured by a clock of the inbox itself, since the machine's clock
may be wrong. The table `marks` has the highest sequence number at some times of this clock.

If the inbox is too large, events of the peers with the most data are deleted, so that no peer can push out the events
of others. An interruption replaces the last of the deleted events; subscribers that have not read them yet get it. If
all peers have about the same amount of data, the oldest events of all peers are deleted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import apsw

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.port import Event
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import read_floor, read_latest, read_size
from custommsg_server.inbox.sqlite.schema import BLOCK
from custommsg_server.inbox.sqlite.writing import EVENT_OVERHEAD
from custommsg_server.storage.values import number

CHANNEL_WEIGHT: Final = 8
"""How many times more data of a peer with channels is stored."""
_ABOUT_THE_SAME: Final = 2
"""All peers have about the same amount of data if the largest has at most so many times more than the smallest."""
_MARKS: Final = 1000
"""The number of marks in the time for which events are stored; it determines the precision of their age."""
_DELETED_AT_ONCE: Final = 4 << 20
"""The maximum number of bytes to delete in one transaction: about 10 ms."""
_LARGEST_PEERS: Final = 64
"""The number of the largest peers whose events are deleted in one transaction."""

_DELETE_OLDEST: Final = (
    f"""
    UPDATE peers SET events = events - gone.count, bytes = bytes - gone.size FROM (
        SELECT peer, count(*) AS count, sum(length(message) + {EVENT_OVERHEAD}) AS size
        FROM events WHERE sequence <= ?1 GROUP BY peer
    ) AS gone WHERE peers.id = gone.peer
    """,  # noqa: S608 -- nothing but constants
    "DELETE FROM peers WHERE events <= 0 AND id IN (SELECT peer FROM events WHERE sequence <= ?1)",
    "DELETE FROM events WHERE sequence <= ?1",
    "UPDATE meta SET value = ?1 WHERE name = 'floor'",
)
# Interruptions that concern all peers have no peer, and are not counted.
_WEIGHED: Final = f"""
    WITH weighed AS MATERIALIZED (
        SELECT id, bytes, evicted, bytes * iif(
            peer_id IN (SELECT unhex(value) FROM json_each(?1)), 1, {CHANNEL_WEIGHT}
        ) AS weight, peer_id FROM peers WHERE peer_id <> x''
    )
"""  # noqa: S608 -- nothing but constants
_IS_UNEVEN: Final = f"{_WEIGHED} SELECT max(weight) > {_ABOUT_THE_SAME} * min(weight) FROM weighed"  # noqa: S608
_LARGEST: Final = f"""{_WEIGHED}
    SELECT id, peer_id, bytes, evicted, weight FROM weighed ORDER BY weight DESC LIMIT {_LARGEST_PEERS}
"""  # noqa: S608 -- nothing but constants
# Without sorting: the blocks are in order, and within each the index has the order of the events.
_OLDEST_OF_PEER: Final = f"""
    WITH RECURSIVE blocks (block) AS (
        SELECT ?2 >> {BLOCK} UNION ALL SELECT block + 1 FROM blocks WHERE block < ?3 >> {BLOCK}
    )
    SELECT e.sequence, e.kind, e.time_ns, length(e.message), e.lost, e.node
    FROM blocks CROSS JOIN events e INDEXED BY events_by_peer
    WHERE e.sequence >> {BLOCK} = block AND e.peer = ?1 AND e.sequence >= ?2 AND e.sequence <= ?3 LIMIT ?4
"""  # noqa: S608 -- nothing but constants


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are stored."""

    max_age: float
    """In seconds."""
    max_size: int
    """The maximum size in the file in bytes."""
    consumer_share: float = 0.5
    """The approximate part of `max_size` for events that a named consumer has not acknowledged. They are deleted last,
    unless they take more than this part."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """Events of one peer that were deleted to free space."""

    sequences: list[int]
    """Their sequence numbers, including that of an interruption that replaced earlier ones."""
    interruption: Event
    """The event that replaces the last of them."""
    messages: int
    """How many of them were messages."""


def last_mark(connection: apsw.Connection) -> tuple[int, int] | None:
    """Return the age clock's and the machine's time at the last mark; None if there is no mark."""
    for age, wall_ns in connection.execute("SELECT age, wall_ns FROM marks ORDER BY age DESC LIMIT 1"):
        return number(age), number(wall_ns)
    return None


def mark(connection: apsw.Connection, max_age: float, now: int, wall_ns: int, *, is_first: bool) -> None:
    """Add a mark with the highest sequence number, if the last mark is old enough.

    Args:
        connection: to the file, in a transaction.
        max_age: how long events are stored, in nanoseconds.
        now: the age clock's time.
        wall_ns: the machine's time, minus the time that the age clock has still to catch up with.
        is_first: add a mark in any case: the events in the file were stored before the gateway started.
    """
    last = last_mark(connection)
    if is_first or last is None or now >= last[0] + max_age / _MARKS:
        latest = read_latest(connection)
        connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (now, latest, wall_ns))
        connection.execute(
            "DELETE FROM marks WHERE age < (SELECT max(age) FROM marks WHERE age <= ?)", (now - max_age,)
        )


def delete_old(
    connection: apsw.Connection, retention: Retention, favored: str, now: int, latest: int, limit: int
) -> int:
    """Delete some events that are too old or, if all peers have about the same amount of data, exceed the maximum size.

    Args:
        connection: to the file, in a transaction.
        retention: how long events are stored.
        favored: the peers with channels, as a JSON list of node ids.
        now: the age clock's time.
        latest: the last event that may be deleted.
        limit: the maximum number of events to delete.

    Returns:
        The number of deleted events.

    Raises:
        apsw.Error: the transaction cannot go on.
    """
    too_old = number(
        connection.execute(
            "SELECT coalesce(max(sequence), 0) FROM marks WHERE age <= ?", (now - retention.max_age * 1e9,)
        ).get
    )
    # Delete little at once: afterwards the peer of the oldest events has less data, and another one may have the most.
    excess = min(read_size(connection) - retention.max_size, retention.max_size // 16)
    if excess > 0 and connection.execute(_IS_UNEVEN, (favored,)).get:
        excess = 0
    last, count, freed = 0, 0, 0
    cursor = connection.execute(
        "SELECT sequence, length(message) FROM events WHERE sequence <= ? ORDER BY sequence LIMIT ?",
        (latest, limit),
    )
    try:
        for sequence, size in cursor:
            if (number(sequence) > too_old and freed >= excess) or freed >= _DELETED_AT_ONCE:
                break
            last, count, freed = number(sequence), count + 1, freed + number(size) + EVENT_OVERHEAD
    finally:
        cursor.close()
    for statement in _DELETE_OLDEST if count else ():
        connection.execute(statement, (last,))
    return count


def evict(
    connection: apsw.Connection,
    positions: Positions,
    retention: Retention,
    favored: str,
    latest: int,
    limit: int,
) -> list[Evicted]:
    """Free some space by deleting the oldest events of the peers with the most data, unless all have about the same.

    Events that a named consumer has not acknowledged are deleted last, after acknowledged events of smaller peers.

    Args:
        connection: to the file, in a transaction.
        positions: makes the positions of interruptions.
        retention: the maximum size.
        favored: the peers with channels, as a JSON list of node ids.
        latest: the last event that may be deleted.
        limit: the maximum number of events to delete.

    Raises:
        apsw.Error: the transaction cannot go on.
    """
    excess = min(read_size(connection) - retention.max_size, _DELETED_AT_ONCE)
    if excess <= 0 or not connection.execute(_IS_UNEVEN, (favored,)).get:
        return []
    evicted: list[Evicted] = []
    largest = connection.execute(_LARGEST, (favored,)).fetchall()
    first = read_floor(connection) + 1
    for until in (_acknowledged(connection, retention, first - 1, latest), latest):
        for peer, peer_id, size, gap, weight in largest:
            is_small = number(weight) * _ABOUT_THE_SAME < number(largest[0][-1])
            if excess <= 0 or limit <= 0 or (is_small and until == latest):
                break
            rows, freed = _oldest_of(
                connection,
                number(peer),
                max(number(gap), first),
                until,
                min(excess, number(size) // 2),
                limit,
            )
            if freed > 0:
                evicted.append(_replace(connection, positions, number(peer), peer_id, rows, freed))
                excess, limit = excess - freed, limit - len(rows)
        if evicted:
            break
    return evicted


def _acknowledged(connection: apsw.Connection, retention: Retention, floor: int, latest: int) -> int:
    """Return the sequence number up to which events may be deleted first: named consumers have acknowledged them."""
    [row] = connection.execute(
        "SELECT coalesce(sum(events), 0), coalesce(sum(bytes), 0),"
        " (SELECT coalesce(min(position), ?1) FROM consumers WHERE position >= ?2) FROM peers",
        (latest, floor),
    ).fetchall()
    count, size, position = map(number, row)
    return max(position, latest - int(retention.consumer_share * retention.max_size * count / max(1, size)))


def _oldest_of(
    connection: apsw.Connection, peer: int, first: int, until: int, size: int, limit: int
) -> tuple[list[tuple[int, ...]], int]:
    """Return the oldest events of a peer, and the bytes that are freed when an interruption replaces them."""
    rows: list[tuple[int, ...]] = []
    freed = -EVENT_OVERHEAD
    cursor = connection.execute(_OLDEST_OF_PEER, (peer, first, until, limit))
    try:
        for row in cursor:
            rows.append(tuple(map(number, row)))
            freed += rows[-1][3] + EVENT_OVERHEAD
            if freed >= size:
                break
    finally:
        cursor.close()
    return rows, freed


def _replace(
    connection: apsw.Connection,
    positions: Positions,
    peer: int,
    peer_id: object,
    rows: list[tuple[int, ...]],
    freed: int,
) -> Evicted:
    """Replace events of a peer with one interruption, at the place of the last of them."""
    last, _, time_ns, _, _, node = rows[-1]
    node_id = connection.execute("SELECT node_id FROM nodes WHERE id = ?", (node,)).get
    if not isinstance(node_id, bytes) or not isinstance(peer_id, bytes):
        raise apsw.CorruptError("an event is not as it was written")
    sequences = [row[0] for row in rows]
    messages = sum(row[1] == Kind.MESSAGE.value for row in rows)
    lost = messages + sum(row[4] for row in rows)
    connection.execute(
        "DELETE FROM events WHERE sequence IN (SELECT value FROM json_each(?))", (json.dumps(sequences),)
    )
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, NULL, ?, ?, x'', ?)",
        (last, peer, node, Kind.INTERRUPTION.value, time_ns, lost),
    )
    connection.execute(
        "UPDATE peers SET events = events - ?, bytes = bytes - ?, evicted = ? WHERE id = ?",
        (len(rows) - 1, freed, last, peer),
    )
    interruption = Arrival(Kind.INTERRUPTION, time_ns, peer_id, b"", lost, node_id)
    return Evicted(sequences, Event(positions.of(last), interruption), messages)
