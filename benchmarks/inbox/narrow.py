"""What a narrow subscriber reads of a large inbox: `python -m benchmarks.inbox.narrow --events 10000000`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

from cyclopts import App, Parameter

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.sqlite.store import SqliteStore

TYPES: Final = 1000
PEERS: Final = 10_000
_BATCH: Final = 5000
_SIZE: Final = 64
cli = App(name="benchmarks.inbox.narrow", help="What a narrow subscriber reads of a large inbox.")


def arrival(number: int) -> Arrival:
    """Return one of many messages, spread over all types and peers."""
    peer = b"\x02" + (number * 7919 % PEERS).to_bytes(32, "big")
    message = (32768 + number % TYPES).to_bytes(2, "big") + number.to_bytes(8, "big") + bytes(_SIZE - 10)
    return Arrival(Kind.MESSAGE, time.time_ns(), peer, message)


def read(store: SqliteStore, wanted: Filter) -> tuple[int, int, float]:
    """Read all that passes a filter; return the events, the rows that were read for them, and the seconds."""
    start, position, events, rows, latest = perf_counter(), 0, 0, 0, store.held().latest
    while position < latest:
        chunk = store.read(wanted, position, latest, 500, 1 << 20)
        position, events, rows = chunk.end, events + len(chunk.events), rows + chunk.rows
    return events, rows, perf_counter() - start


@cli.default
def main(
    *,
    events: Annotated[int, Parameter(help="How many events the inbox holds.")] = 1_000_000,
    folder: Annotated[Path | None, Parameter(help="Where to make it; it is removed at the end.")] = None,
) -> None:
    """Fill an inbox, and print what subscribers read of it."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        store = SqliteStore(Path(temporary) / "inbox.sqlite3")
        start = perf_counter()
        for first in range(0, events, _BATCH):
            store.append([arrival(number) for number in range(first, min(first + _BATCH, events))])
        print(f"{events:,} events of {_SIZE} bytes stored in {perf_counter() - start:.0f} s")
        print(f"{'subscriber':<22}{'events':>12}{'rows read':>12}{'seconds':>10}")
        for name, wanted in (
            (f"one type of {TYPES:,}", Filter(types=TypeSet([range(32768, 32769)]))),
            (f"one peer of {PEERS:,}", Filter(peer_ids=frozenset({arrival(1).peer_id}))),
            ("everything", Filter()),
        ):
            found, rows, seconds = read(store, wanted)
            print(f"{name:<22}{found:>12,}{rows:>12,}{seconds:>10.2f}", flush=True)
        store.close()


if __name__ == "__main__":
    cli()
