"""Arrivals, and an SQLite store that fails or waits when a test says so."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, InboxError, Subscription
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore, Stored

ALICE = b"\x02" + b"a" * 32
BOB = b"\x03" + b"b" * 32
OURS = b"\x02" + b"o" * 32
FOREVER = Retention(max_age=1e11, max_size=1 << 40)  # arrivals here may be of 1970
EVERYTHING = Filter(peer_events=True)
MOST = 1 << 40


def arrival(
    number: int = 0,
    *,
    kind: Kind = Kind.MESSAGE,
    peer_id: bytes = ALICE,
    message_type: int = 37913,
    size: int = 10,
    time_ns: int = 1,
    name: str = "",
) -> Arrival:
    """Make an arrival; a message holds `number` and has `size` bytes."""
    message = b""
    if kind is Kind.MESSAGE:
        message = message_type.to_bytes(2, "big") + number.to_bytes(8, "big") + bytes(max(0, size - 10))
    return Arrival(kind, time_ns, peer_id, message, node_id=OURS, id=name)


def some(first: int, last: int) -> list[Arrival]:
    """Make messages that hold these numbers."""
    return [arrival(number) for number in range(first, last + 1)]


def nameless(arrival: Arrival) -> Arrival:
    """Return an arrival as an engine keeps it: without its id."""
    return arrival._replace(id="")


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the numbers that the messages hold."""
    return [int.from_bytes(event.arrival.message[2:10], "big") for event in events]


def sequences(events: Sequence[Event]) -> list[int]:
    """Return their sequence numbers; for the SQLite engine only."""
    return [int(event.position.rpartition("-")[2]) for event in events]


async def collect(subscription: Subscription, count: int) -> list[Event]:
    """Read from a subscription until it has given `count` events."""
    events: list[Event] = []
    while len(events) < count:
        events += (await anext(subscription)).events
    return events


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Yield a directory for tests that store very often; in memory where the system has one."""
    shared_memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        dir=shared_memory if os.access(shared_memory, os.W_OK) else None
    ) as name:
        yield Path(name)


def read(store: SqliteStore, after: int = 0, limit: int = 100_000, max_size: int = MOST) -> list[Event]:
    """Return what is in a store."""
    return store.read(EVERYTHING, after, store.held().latest, limit, max_size).events


class FaultyStore(SqliteStore):
    """A store that fails or waits as a test asks.

    Set `fails` to an error text, clear `may_append` to let `append` wait, and read `appended` to see how
    many arrivals each commit had.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fails: str | None = None
        self.may_append = threading.Event()
        self.may_append.set()
        self.is_appending = threading.Event()
        self.appended: list[int] = []
        self.is_helped_by_pruning = False
        """Whether `fails` is over when something was deleted."""

    def append(self, arrivals: Sequence[Arrival]) -> Stored:
        self.is_appending.set()
        assert self.may_append.wait(20)
        if self.fails is not None:
            raise InboxError(self.fails)
        self.appended.append(len(arrivals))
        return super().append(arrivals)

    def prune(self, retention: Retention, now: int, limit: int, wall_ns: int = 0, favored: str = "[]") -> int:
        pruned = super().prune(retention, now, limit, wall_ns, favored)
        if pruned and self.is_helped_by_pruning:
            self.fails = None
        return pruned
