"""Reads an SQLite inbox: events that match a filter, its size, the consumers. Every value is checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import apsw

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.schema import BLOCK
from custommsg_server.storage.values import number

_KINDS: Final = {kind.value: kind for kind in Kind}

_MOST_NARROW: Final = 1000
"""The number of peers or type ranges up to which an index is used; with more, all events are read."""
_MOST_TYPES: Final = 4096
"""The number of types in these ranges up to which an index is used: half of all types match most events."""
_MOST_SEEKS: Final = 1 << 16
"""The approximate number of index look-ups in one read: some 50 ms."""

# LEFT JOIN: in a damaged file rows may be missing, which must not hide an event.
_ROWS: Final = """
    SELECT e.sequence, e.kind, e.time_ns, p.peer_id, e.message, e.lost, e.node
    FROM {events} LEFT JOIN peers p ON p.id = e.peer
"""
_SCAN: Final = (
    _ROWS.format(events="events e")
    + "WHERE e.sequence > ?1 AND e.sequence <= ?2 ORDER BY e.sequence LIMIT ?3"
)
# CROSS JOIN keeps the order of the loops. The inner query needs the index alone, so sorting costs little.
_SEARCH: Final = f"""
    WITH RECURSIVE blocks (block) AS (
        SELECT (?1 + 1) >> {BLOCK} UNION ALL SELECT block + 1 FROM blocks WHERE block < ?2 >> {BLOCK}
    ), keys (first, last) AS MATERIALIZED ({{keys}}), found (sequence) AS MATERIALIZED (
        SELECT e.sequence FROM blocks CROSS JOIN keys CROSS JOIN events e INDEXED BY {{index}}
        WHERE e.sequence >> {BLOCK} = block AND {{column}} BETWEEN first AND last
            AND e.sequence > ?1 AND e.sequence <= ?2
        ORDER BY e.sequence LIMIT ?3
    )
    {_ROWS.format(events="found LEFT JOIN events e ON e.sequence = found.sequence")}
"""  # noqa: S608 -- nothing but constants
_BY_TYPE: Final = _SEARCH.format(
    index="events_by_type",
    column="coalesce(e.type, -e.kind)",
    keys="SELECT value ->> 0, value ->> 1 FROM json_each(?4)",
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some events in order."""

    events: list[Event]
    end: int
    """All events up to this sequence number are in it, or do not match the filter."""
    floor: int
    """The highest sequence number that was deleted; if it is after the start of the chunk, events are missing."""
    rows: int
    """How many events were read, including those that do not match the filter."""


@dataclass(frozen=True, slots=True)
class Held:
    """The content of an inbox."""

    floor: int
    """The highest sequence number that the retention has deleted."""
    latest: int
    """The highest sequence number that was ever used; 0 if nothing was ever stored."""
    count: int
    """How many events are stored."""
    size: int
    """Bytes of the pages in use."""
    oldest_ns: int
    """When the oldest event arrived, in nanoseconds since 1970, UTC; 0 if the inbox is empty."""
    largest_share: float = field(default=0.0, compare=False)
    """The largest part of the inbox that one peer takes."""


@dataclass(frozen=True, slots=True)
class Search:
    """A statement that finds the events for a filter, and perhaps a few more, by an index."""

    statement: str
    keys: tuple[str | bytes, ...]
    """Its parameters from the fourth on; the first three are: after, until, limit."""
    key_count: int
    """The number of look-ups for each block."""


def search_for(wanted: Filter) -> Search | None:
    """Choose an index for a filter; None if so many events match that all are read."""
    if wanted.peer_ids is not None:
        if len(wanted.peer_ids) > _MOST_NARROW:
            return None
        keys = (b"", *wanted.peer_ids)  # the empty id: interruptions that concern all peers
        return Search(_by_peer(len(keys)), keys, len(keys))
    if wanted.types is not None and len(wanted.types) <= _MOST_TYPES:
        ranges = [(one[0], one[-1]) for one in wanted.types.ranges]
        ranges.append(
            (-Kind.INTERRUPTION.value, -(Kind.CONNECTED if wanted.peer_events else Kind.INTERRUPTION).value)
        )
        if wanted.outbox_events:
            ranges.append((-Kind.OUTBOX.value, -Kind.OUTBOX.value))
        if len(ranges) <= _MOST_NARROW:
            return Search(_BY_TYPE, (json.dumps(ranges),), len(ranges))
    return None


@lru_cache(maxsize=64)
def _by_peer(count: int) -> str:
    places = ", ".join(f"?{number}" for number in range(4, 4 + count))
    return _SEARCH.format(
        index="events_by_peer",
        column="e.peer",
        keys=f"SELECT id, id FROM peers WHERE peer_id IN ({places})",  # noqa: S608 -- nothing but question marks
    )


class _Page:
    """The events of one read, up to a size."""

    def __init__(self, connection: apsw.Connection, positions: Positions, wanted: Filter, room: int) -> None:
        self._connection = connection
        self._prefix = positions.prefix
        self._wanted = wanted
        self._room = room
        self._nodes: dict[int, bytes] = {}
        self.events: list[Event] = []
        self.rows = 0
        self.is_full = False

    def take(self, statement: str, bindings: Sequence[int | str | bytes]) -> tuple[int, int]:
        """Run a statement; return the number of rows that were read, and the sequence number of the last."""
        prefix, passes, nodes = self._prefix, self._wanted.passes, self._nodes
        events, room = self.events, self._room
        count = last = 0
        cursor = self._connection.execute(statement, bindings)
        try:
            # Not a `match`, which takes three times as long: this runs for each replayed event.
            for sequence, kind, time_ns, peer_id, message, lost, node in cursor:
                if not (
                    type(sequence) is int
                    and sequence > last
                    and kind in _KINDS
                    and type(time_ns) is int
                    and type(peer_id) is bytes
                    and type(message) is bytes
                    and (len(message) > 1 or kind not in (1, 5))
                    and type(lost) is int
                    and type(node) is int
                ):
                    raise apsw.CorruptError("an event is not as it was written")
                node_id = nodes.get(node)
                if node_id is None:
                    node_id = self._node(node)
                arrival = Arrival(_KINDS[kind], time_ns, peer_id, message, lost, node_id)
                if passes(arrival):
                    if room < len(message) and events:
                        self.is_full = True
                        break
                    room -= len(message)
                    events.append(Event(f"{prefix}{sequence}", arrival))  # type: ignore[arg-type]
                count, last = count + 1, sequence
        finally:
            cursor.close()  # an open cursor would prevent that the log is emptied
        self._room = room
        self.rows += count
        return count, last

    def _node(self, node: int) -> bytes:
        node_id = self._connection.execute("SELECT node_id FROM nodes WHERE id = ?", (node,)).get
        if not isinstance(node_id, bytes):
            raise apsw.CorruptError("an event is not as it was written")
        self._nodes[node] = node_id
        return node_id


def read_chunk(
    connection: apsw.Connection,
    positions: Positions,
    wanted: Filter,
    after: int,
    until: int,
    limit: int,
    max_size: int,
) -> Chunk:
    """Read some of the events that match a filter, in order.

    Args:
        connection: to the file.
        positions: makes the positions of the events.
        wanted: which events.
        after: the sequence number to start after.
        until: the last sequence number to read.
        limit: the maximum number of events to read, of those that the index finds.
        max_size: the maximum size of their messages in bytes; a single message may be larger.

    Raises:
        apsw.Error: the file cannot be read, or is damaged.
    """
    page = _Page(connection, positions, wanted, max_size)
    search = search_for(wanted)
    if search is None:
        count, last = page.take(_SCAN, (after, until, limit))
        end = last if count == limit or page.is_full else until
    else:
        end = _search(page, search, after, until, limit)
    # Read the floor last: if it is not after the start even now, no event was deleted while we read.
    return Chunk(page.events, max(after, end), read_floor(connection), page.rows)


def _search(page: _Page, search: Search, after: int, until: int, limit: int) -> int:
    """Search several blocks at once: as many as should have the missing events, judging by the last ones."""
    found, blocks, span = 0, 0, 1
    end, most = after, max(1, _MOST_SEEKS // search.key_count)
    while end < until and blocks < most:
        stop = min(until, (((end + 1) >> BLOCK) + span << BLOCK) - 1)
        count, last = page.take(search.statement, (end, stop, limit - found, *search.keys))
        if page.is_full or count == limit - found:
            return last or end
        end = stop
        found, blocks = found + count, blocks + span
        span = max(1, min(blocks * (limit - found) // max(1, found), 4 * blocks))
    return end


def read_inbox_id(connection: apsw.Connection) -> str:
    """Return the random id of the inbox."""
    inbox_id = connection.execute("SELECT value FROM meta WHERE name = 'inbox_id'").get
    if (
        not isinstance(inbox_id, str)
        or len(inbox_id) != 32
        or not inbox_id.isalnum()
        or not inbox_id.isascii()
    ):
        raise apsw.CorruptError("its id is not as it was written")
    return inbox_id


def read_latest(connection: apsw.Connection) -> int:
    """Return the highest sequence number that was ever used; 0 if nothing was ever stored."""
    return number(
        connection.execute("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)").get
    )


def read_held(connection: apsw.Connection) -> Held:
    """Return the content of the inbox."""
    [row] = connection.execute(
        "SELECT (SELECT coalesce(sum(events), 0) FROM peers),"
        " (SELECT coalesce((SELECT time_ns FROM events ORDER BY sequence LIMIT 1), 0)),"
        " (SELECT coalesce(sum(bytes), 0) FROM peers),"
        " (SELECT coalesce(max(bytes), 0) FROM peers WHERE peer_id <> x'')"
    ).fetchall()
    count, oldest_ns, size, largest = map(number, row)
    share = largest / max(1, size)
    return Held(
        read_floor(connection), read_latest(connection), count, read_size(connection), oldest_ns, share
    )


def read_size(connection: apsw.Connection) -> int:
    """Return the bytes of the pages in use."""
    pages, free, page_size = (
        number(connection.pragma(name)) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page_size


def read_consumers(connection: apsw.Connection) -> list[tuple[str, int, int]]:
    """Return the name, the position and the time of the last acknowledgement of each consumer, by name."""
    rows = connection.execute("SELECT name, position, updated_ns FROM consumers ORDER BY name").fetchall()
    return [(str(name), number(position), number(updated_ns)) for name, position, updated_ns in rows]


def read_floor(connection: apsw.Connection) -> int:
    """Return the highest sequence number that the retention has deleted; 0 if it has deleted nothing."""
    return number(connection.execute("SELECT value FROM meta WHERE name = 'floor'").get)
