"""What an SQLite inbox deletes: what was kept for long enough and, to make room, what those sent who have most in it.

Age counts from when an event was stored, by a clock of the inbox's own, and not by the event's time: the machine's
clock may be wrong. `marks` says up to where the inbox had come when.

Room is made by taking from the largest holder, so that no peer can push out the events of others. Where its events
were, an interruption stands in the place of the last one: who is behind is told, who has passed it is not. Only when
all hold about the same do the oldest events go, whoever has sent them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import apsw

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.port import Event
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import number, read_floor, read_latest, read_size
from custommsg_server.inbox.sqlite.schema import BLOCK
from custommsg_server.inbox.sqlite.writing import EVENT_OVERHEAD

CHANNEL_WEIGHT: Final = 8
"""How many times as much is kept of a peer that is to be kept more of."""
_ABOUT_THE_SAME: Final = 2
"""How many times as much as the smallest holder the largest one has, if all hold about the same."""
_MARKS: Final = 1000
"""Marks in the time for which events are kept: so exact is their age."""
_DELETED_AT_ONCE: Final = 4 << 20
"""Bytes that are deleted at once at most: about 10 ms."""
_HOLDERS: Final = 64
"""The largest holders, of whom something is taken at once."""

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
# Interruptions that concern all peers belong to nobody, and are not counted.
_WEIGHED: Final = f"""
    WITH weighed AS MATERIALIZED (
        SELECT id, bytes, evicted, bytes * iif(
            peer_id IN (SELECT unhex(value) FROM json_each(?1)), 1, {CHANNEL_WEIGHT}
        ) AS weight, peer_id FROM peers WHERE peer_id <> x''
    )
"""  # noqa: S608 -- nothing but constants
_IS_UNEVEN: Final = f"{_WEIGHED} SELECT max(weight) > {_ABOUT_THE_SAME} * min(weight) FROM weighed"  # noqa: S608
_LARGEST: Final = f"""{_WEIGHED}
    SELECT id, peer_id, bytes, evicted, weight FROM weighed ORDER BY weight DESC LIMIT {_HOLDERS}
"""  # noqa: S608 -- nothing but constants
# In order without sorting: the blocks come in order, and in each the index is in the order of the events.
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
    """How long events are kept."""

    max_age: float
    """Seconds."""
    max_size: int
    """Bytes in the file."""
    consumer_share: float = 0.5
    """The part of it, about, that events may take that a named consumer has not acknowledged, before one of them goes
    to make room."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """Events of one peer that were deleted to make room."""

    sequences: list[int]
    """Their sequence numbers, with that of an interruption that stood for earlier ones."""
    interruption: Event
    """What stands in the place of the last of them."""
    messages: int
    """How many of them were messages."""


def last_mark(connection: apsw.Connection) -> tuple[int, int] | None:
    """Return what the age clock and the machine's clock said at the last mark; None if there is none."""
    for age, wall_ns in connection.execute("SELECT age, wall_ns FROM marks ORDER BY age DESC LIMIT 1"):
        return number(age), number(wall_ns)
    return None


def mark(connection: apsw.Connection, max_age: float, now: int, wall_ns: int, *, is_first: bool) -> None:
    """Mark where the inbox is now, if the last mark is old enough.

    Args:
        connection: to the file, in a transaction.
        max_age: for how long events are kept, in nanoseconds.
        now: what the age clock says.
        wall_ns: what the machine's clock said when it was up to date: what is not made up for yet is taken off.
        is_first: mark in any case, since what is there was stored before the gateway was away.
    """
    last = last_mark(connection)
    if is_first or last is None or now >= last[0] + max_age / _MARKS:
        latest = read_latest(connection)
        connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (now, latest, wall_ns))
        connection.execute(
            "DELETE FROM marks WHERE age < (SELECT max(age) FROM marks WHERE age <= ?)", (now - max_age,)
        )


def delete_old(connection: apsw.Connection, retention: Retention, favored: str, now: int, limit: int) -> int:
    """Delete some events that were kept long enough or, if all peers hold about the same, are too much.

    Args:
        connection: to the file, in a transaction.
        retention: how long events are kept.
        favored: the peers of whom more is kept, as JSON.
        now: what the age clock says.
        limit: how many events at most; only so many go as takes a moment.

    Returns:
        How many were deleted, the oldest.

    Raises:
        apsw.Error: the transaction cannot go on.
    """
    too_old = number(
        connection.execute(
            "SELECT coalesce(max(sequence), 0) FROM marks WHERE age <= ?", (now - retention.max_age * 1e9,)
        ).get
    )
    # Little at once: who sent the oldest events holds less afterwards, so that it may be somebody else's turn.
    excess = min(read_size(connection) - retention.max_size, retention.max_size // 16)
    if excess > 0 and connection.execute(_IS_UNEVEN, (favored,)).get:
        excess = 0
    last, count, freed = 0, 0, 0
    cursor = connection.execute(
        "SELECT sequence, length(message) FROM events ORDER BY sequence LIMIT ?", (limit,)
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
    connection: apsw.Connection, positions: Positions, retention: Retention, favored: str, limit: int
) -> list[Evicted]:
    """Make some room by deleting the oldest events of those who hold most, unless all hold about the same.

    What a named consumer has not acknowledged goes last: before that, what smaller holders sent and all have read.

    Args:
        connection: to the file, in a transaction.
        positions: makes the positions of interruptions.
        retention: how much is kept.
        favored: the peers of whom more is kept, as JSON.
        limit: how many events of a peer at most.

    Raises:
        apsw.Error: the transaction cannot go on.
    """
    excess = min(read_size(connection) - retention.max_size, _DELETED_AT_ONCE)
    if excess <= 0 or not connection.execute(_IS_UNEVEN, (favored,)).get:
        return []
    evicted: list[Evicted] = []
    holders = connection.execute(_LARGEST, (favored,)).fetchall()
    first, latest = read_floor(connection) + 1, read_latest(connection)
    for until in (_acknowledged(connection, retention, first - 1, latest), latest):
        for peer, peer_id, size, gap, weight in holders:
            is_small = number(weight) * _ABOUT_THE_SAME < number(holders[0][-1])
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
    """Return up to where events may go before what named consumers have not acknowledged."""
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
    """Return the oldest events of a peer, and how many bytes are free when an interruption stands for them."""
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
    """Replace events of a peer by one interruption, in the place of the last of them."""
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
