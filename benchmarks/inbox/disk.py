"""The limits that the machine sets, without a gateway: its disk, and the store on it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from time import perf_counter
from typing import Final

import coincurve

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.sqlite.store import SqliteStore

PEER: Final = coincurve.PrivateKey((1).to_bytes(32, "big")).public_key.format()
TYPE: Final = 37913
_BATCH: Final = 500
_MOST_BYTES: Final = 1 << 20


def sync_rate(folder: Path, seconds: float) -> float:
    """Return how often a second the disk makes a page of 4 kB safe."""
    page, count, end = os.urandom(4096), 0, perf_counter() + seconds
    file = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        start = perf_counter()
        while perf_counter() < end:
            os.write(file, page)
            os.fsync(file)
            count += 1
        return count / (perf_counter() - start)
    finally:
        os.close(file)


def message(size: int, due_ns: int = 0) -> bytes:
    """Return a message that carries the time when it was due."""
    return TYPE.to_bytes(2, "big") + due_ns.to_bytes(8, "big") + bytes(size - 10)


def fill(path: Path, count: int, size: int) -> float:
    """Fill a store with messages, in commits of some hundred; return messages a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(path)
    try:
        start = perf_counter()
        for first in range(0, count, _BATCH):
            arrival = Arrival(Kind.MESSAGE, time.time_ns(), PEER, message(size))
            store.append([arrival] * min(_BATCH, count - first))
        return count / (perf_counter() - start)
    finally:
        store.close()


def read_all(path: Path) -> float:
    """Read a store from end to end; return messages a second."""
    store = SqliteStore(path)
    try:
        start, place, count, latest = perf_counter(), 0, 0, store.held().latest
        while place < latest:
            chunk = store.read(Filter(), place, latest, _BATCH, _MOST_BYTES)
            place, count = chunk.end, count + len(chunk.events)
        return count / (perf_counter() - start)
    finally:
        store.close()
