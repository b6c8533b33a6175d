"""What a narrow subscriber of a large inbox reads, beside one that wants everything."""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore

PEERS: Final = 10_000
TYPES: Final = 1_000
_FIRST_TYPE: Final = 32_768
_COMMIT: Final = 5_000
"""Events in a commit while the inbox is filled."""
_FOREVER: Final = Retention(max_age=1e9, max_size=1 << 50)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a subscriber took from the beginning to the newest event."""

    case: str
    events: int
    rows: int
    """Events that the inbox read for it, those included that it did not want."""
    first_s: float
    """Seconds until its first event."""
    seconds: float
    cpu_s: float
    """CPU time of it, in seconds."""


@dataclass(frozen=True, slots=True)
class Filling:
    """What filling the inbox cost: CPU microseconds an event."""

    first_tenth: float
    last_tenth: float
    size_mb: float


class CountingStore(SqliteStore):
    """A store that counts what is read from it."""

    rows = 0

    def read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        """Read, and count."""
        chunk = super().read(wanted, after, until, limit, max_size)
        CountingStore.rows += chunk.rows
        return chunk


async def measure(events: int, size: int) -> tuple[Filling, list[Reading]]:
    """Fill an inbox with events of random peers and types, and read it as subscribers do.

    Args:
        events: how many.
        size: bytes of a message.
    """
    with tempfile.TemporaryDirectory(prefix="custommsg-bench-") as folder:
        path = Path(folder) / "inbox.sqlite3"
        filling = fill(path, events, size)
        async with SqliteInbox(path, _FOREVER, SqliteOptions(heartbeat=0), CountingStore) as inbox:
            one_type, one_peer = TypeSet([_types(0, 1)]), frozenset({_peer(0)})
            cases = {
                f"1 type of {TYPES:,}": Filter(types=one_type),
                f"1 peer of {PEERS:,}": Filter(peer_ids=one_peer),
                "this type of this peer": Filter(one_peer, one_type),
                "10 types": Filter(types=TypeSet([_types(number, 1) for number in range(0, 100, 10)])),
                "a range of 100 types": Filter(types=TypeSet([_types(0, 100)])),
                "100 peers": Filter(peer_ids=frozenset(map(_peer, range(100)))),
                "everything": Filter(),
            }
            return filling, [await _read(inbox, case, wanted) for case, wanted in cases.items()]


def fill(path: Path, events: int, size: int) -> Filling:
    """Fill a new inbox."""
    draw = random.Random(1)
    peers = [_peer(number) for number in range(PEERS)]
    types = [number.to_bytes(2, "big") for number in _types(0, TYPES)]
    payload = bytes(max(0, size - 2))
    store = SqliteStore(path)
    tenths: list[float] = []
    try:
        for tenth in range(10):
            start = process_time()
            left = events * (tenth + 1) // 10 - events * tenth // 10
            count = left
            while left:
                commit = min(left, _COMMIT)
                now = time.time_ns()
                store.append(
                    [
                        Arrival(Kind.MESSAGE, now, draw.choice(peers), draw.choice(types) + payload)
                        for _ in range(commit)
                    ]
                )
                left -= commit
            tenths.append(1e6 * (process_time() - start) / max(1, count))
        return Filling(tenths[0], tenths[-1], store.held().size / 1e6)
    finally:
        store.close()


async def _read(inbox: SqliteInbox, case: str, wanted: Filter) -> Reading:
    subscription = await inbox.subscribe(wanted, Start.BEGINNING)
    latest = (await inbox.bounds()).latest
    CountingStore.rows, events, first, start, cpu = 0, 0, 0.0, perf_counter(), process_time()
    while subscription.position != latest:
        batch = await anext(subscription)
        if batch.events and not events:
            first = perf_counter() - start
        events += len(batch.events)
    return Reading(case, events, CountingStore.rows, first, perf_counter() - start, process_time() - cpu)


def _peer(number: int) -> bytes:
    return b"\x02" + number.to_bytes(32, "big")


def _types(first: int, count: int) -> range:
    return range(_FIRST_TYPE + first, _FIRST_TYPE + first + count)
