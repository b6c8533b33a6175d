"""Writes events to an SQLite inbox within a transaction, and counts them in the rows of their peers.

Each statement releases Python's lock to the event loop, and has to wait to get it back. So under load the number of
statements decides how long a commit takes: there are few, with many rows each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import apsw

from custommsg_server.domain.events import MESSAGE, Arrival
from custommsg_server.storage.values import number

EVENT_OVERHEAD: Final = 64
"""The approximate size of an event in bytes, without its message."""


def _of_many_rows(statement: str) -> tuple[tuple[int, str], ...]:
    """Return an INSERT for each of several numbers of rows, the largest first."""
    row = f"({', '.join('?' * statement.count('?'))})"
    return tuple(
        (rows, statement.replace(row, ", ".join([row] * rows))) for rows in (128, 64, 32, 16, 8, 4, 2, 1)
    )


_ADD_EVENTS: Final = _of_many_rows("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
_ADD_TO_PEERS: Final = _of_many_rows(
    "INSERT INTO peers (peer_id, events, bytes) VALUES (?, ?, ?) ON CONFLICT (peer_id) "
    "DO UPDATE SET events = events + excluded.events, bytes = bytes + excluded.bytes RETURNING peer_id, id"
)


class Numbers:
    """The numbers of our nodes in the table of events."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, int] = {}

    def of_nodes(self, connection: apsw.Connection, node_ids: set[bytes]) -> dict[bytes, int]:
        """Return the numbers of at least these nodes; a new one gets a number."""
        for node_id in node_ids - self._nodes.keys():
            known = connection.execute("SELECT id FROM nodes WHERE node_id = ?", (node_id,)).get
            if known is None:
                known = connection.execute(
                    "INSERT INTO nodes (node_id) VALUES (?) RETURNING id", (node_id,)
                ).get
            self._nodes[node_id] = number(known)
        return self._nodes

    def forget(self) -> None:
        """Forget them, because the transaction failed: they may not be in the file."""
        self._nodes.clear()


def add_events(
    connection: apsw.Connection, numbers: Numbers, first: int, arrivals: Sequence[Arrival]
) -> None:
    """Add events in a transaction; `first` is the sequence number of the first. Raises apsw.Error."""
    peers = _add_to_peers(connection, arrivals)
    nodes = numbers.of_nodes(connection, {one.node_id for one in arrivals})
    at = 0
    for rows, statement in _ADD_EVENTS:
        while len(arrivals) - at >= rows:
            values: list[int | bytes | None] = []
            for sequence, one in enumerate(arrivals[at : at + rows], first + at):
                message = one.message
                values += (
                    sequence,
                    peers.get(one.peer_id),
                    nodes[one.node_id],
                    message[0] << 8 | message[1] if one.kind is MESSAGE else None,
                    one.kind.value,
                    one.time_ns,
                    message,
                    one.lost,
                )
            connection.execute(statement, values)
            at += rows


def _add_to_peers(connection: apsw.Connection, arrivals: Sequence[Arrival]) -> dict[bytes, int]:
    """Count arrivals in the rows of their peers; return the number of each peer."""
    sizes: defaultdict[bytes, list[int]] = defaultdict(list)
    for one in arrivals:
        sizes[one.peer_id].append(len(one.message) + EVENT_OVERHEAD)
    accounts = [(peer_id, len(some), sum(some)) for peer_id, some in sizes.items()]
    peers: dict[bytes, int] = {}
    at = 0
    for rows, statement in _ADD_TO_PEERS:
        while len(accounts) - at >= rows:
            values = [value for account in accounts[at : at + rows] for value in account]
            for peer_id, peer in connection.execute(statement, values).fetchall():
                if isinstance(peer_id, bytes):
                    peers[peer_id] = number(peer)
            at += rows
    return peers
