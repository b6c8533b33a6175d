"""Arrivals, and a store that fails or waits when a test says so."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from custommsg_server.inbox.port import Arrival, Consumer, Event, Kind, Range, Retention, Store, StoreError
from custommsg_server.inbox.sqlite.feed import Subscription
from custommsg_server.inbox.sqlite.store import SqliteStore

ALICE = b"\x02" + b"a" * 32
BOB = b"\x03" + b"b" * 32
FOREVER = Retention(max_age=1e11, max_size=1 << 40)  # arrivals here may be of 1970


def arrival(
    number: int = 0,
    *,
    kind: Kind = Kind.MESSAGE,
    node_id: bytes = ALICE,
    message_type: int = 37913,
    size: int = 10,
    time_ns: int = 1,
) -> Arrival:
    """Make something that arrived; a message holds `number` and has `size` bytes."""
    message = b""
    if kind is Kind.MESSAGE:
        message = message_type.to_bytes(2, "big") + number.to_bytes(8, "big") + bytes(max(0, size - 10))
    return Arrival(kind, time_ns, node_id, message)


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the numbers that the messages hold."""
    return [int.from_bytes(event.arrival.message[2:10], "big") for event in events]


def sequences(events: Sequence[Event]) -> list[int]:
    """Return their sequence numbers."""
    return [event.sequence for event in events]


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


class Unruly(Store):
    """A store in a file that does what a test tells it.

    Set `fails` to what shall be wrong, clear `may_append` to let `append` wait, and read `appended` to see how
    many arrivals each commit had.
    """

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.fails: str | None = None
        self.may_append = threading.Event()
        self.may_append.set()
        self.is_appending = threading.Event()
        self.appended: list[int] = []
        self.is_helped_by_pruning = False
        """Whether `fails` is over when something was forgotten."""

    @property
    def inbox_id(self) -> str:
        return self.store.inbox_id

    def append(self, arrivals: Sequence[Arrival]) -> list[Event]:
        self.is_appending.set()
        assert self.may_append.wait(20)
        if self.fails is not None:
            raise StoreError(self.fails)
        self.appended.append(len(arrivals))
        return self.store.append(arrivals)

    def read(self, after: int, limit: int, max_size: int) -> list[Event]:
        return self.store.read(after, limit, max_size)

    def range(self) -> Range:
        return self.store.range()

    def prune(self, retention: Retention, now_ns: int, limit: int) -> int:
        pruned = self.store.prune(retention, now_ns, limit)
        if pruned and self.is_helped_by_pruning:
            self.fails = None
        return pruned

    def consumers(self) -> list[Consumer]:
        return self.store.consumers()

    def advance(self, name: str, position: int, now_ns: int) -> int:
        return self.store.advance(name, position, now_ns)

    def forget(self, name: str) -> bool:
        return self.store.forget(name)

    def close(self) -> None:
        self.store.close()
