"""`python -m benchmarks.inbox`: replay, live, and (`narrow`) narrow subscribers of a large inbox."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import grpc
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.inbox import disk
from benchmarks.inbox import narrow as narrow_readers
from benchmarks.inbox.hook import Hook, attached
from benchmarks.inbox.subscriber import Subscriber
from benchmarks.job import Usage
from benchmarks.process import StartError, address_of, end_children_on_sigterm, started
from benchmarks.programs import loops
from benchmarks.rig import Running, gateway
from benchmarks.usage import usage_of
from custommsg.v1 import custommsg_pb2 as pb

SIZE: Final = 1000
"""Bytes of a message."""
RATE: Final = 1000.0
"""Messages a second, for their latency."""
_ONE_PEER: Final = {
    "CUSTOMMSG_PEER_RECEIVED_MESSAGES_PER_S": "1e9",
    "CUSTOMMSG_PEER_RECEIVED_BYTES_PER_S": "1e12",
}
"""Here one peer sends what the gateway takes; its budget is looked at all the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. None where it says nothing."""

    case: str
    messages_per_s: float
    of_limit: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_us: float | None = None
    """CPU microseconds of the gateway for each message delivered."""
    load_us: float | None = None
    """The same of what plays lightningd and the subscriber."""
    server_rss_mb: float | None = None


class Bench:
    """Measures one gateway.

    Args:
        running: the gateway.
        folder: where its inbox and its plugin socket are.
        count: messages that the inbox holds.
    """

    def __init__(self, running: Running, folder: Path, count: int) -> None:
        self._running = running
        self._folder = folder
        self._count = count
        self._before = self._used()

    async def replay(self, limit: float, subscribers: int) -> Line:
        """Let subscribers read everything from the beginning, at once."""
        async with self._subscribed(subscribers, pb.SubscribeCustomMsgsRequest(from_beginning=True)) as each:
            start = self._begin()
            await asyncio.gather(*(one.take(self._count) for one in each))
            total = self._count * subscribers
            return self._line(f"replay-{subscribers}", total, perf_counter() - start, limit)

    async def live(self, hook: Hook, count: int, limit: float) -> Line:
        """Make hook calls as fast as the gateway takes them."""
        async with self._subscribed(1, pb.SubscribeCustomMsgsRequest()) as [one]:
            start = self._begin()
            await asyncio.gather(hook.send_all(count), one.take(count))
            return self._line("live", count, perf_counter() - start, limit, one)

    async def live_at(self, hook: Hook, seconds: float, limit: float) -> Line:
        """Make hook calls at a fixed rate."""
        async with self._subscribed(1, pb.SubscribeCustomMsgsRequest()) as [one]:
            start = self._begin()
            count = int(RATE * seconds)
            await asyncio.gather(hook.send_at(RATE, count), one.take(count))
            return self._line(f"live-{RATE:.0f}/s", count, perf_counter() - start, limit, one)

    @asynccontextmanager
    async def _subscribed(
        self, count: int, request: pb.SubscribeCustomMsgsRequest
    ) -> AsyncIterator[list[Subscriber]]:
        async with grpc.aio.insecure_channel(self._running.address) as channel:
            subscribers = [Subscriber(channel, request) for _ in range(count)]
            for one in subscribers:
                await one.registered()
            yield subscribers
            for one in subscribers:
                one.close()

    def _begin(self) -> float:
        self._before = self._used()
        return perf_counter()

    def _used(self) -> tuple[Usage, Usage] | None:
        server, load = usage_of(self._running.process.pid), usage_of(os.getpid())
        return (server, load) if server and load else None

    def _line(
        self, case: str, count: int, seconds: float, limit: float, one: Subscriber | None = None
    ) -> Line:
        before, now = self._before, self._used()
        return Line(
            case,
            messages_per_s=count / seconds,
            of_limit=count / seconds / limit,
            p50_ms=one.percentile_ms(0.50) if one else None,
            p99_ms=one.percentile_ms(0.99) if one else None,
            server_us=1e6 * (now[0].cpu_s - before[0].cpu_s) / count if now and before else None,
            load_us=1e6 * (now[1].cpu_s - before[1].cpu_s) / count if now and before else None,
            server_rss_mb=now[0].rss_mb if now else None,
        )


async def measure(count: int, live: int, seconds: float) -> list[Line]:
    """Measure all."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="custommsg-bench-")))
        path = folder / "gateway-data" / "inbox.sqlite3"
        syncs = disk.sync_rate(folder, seconds)
        stored = disk.fill(path, count, SIZE)
        read = disk.read_all(path)
        lines = [Line("disk-sync", syncs), Line("store-write", stored), Line("store-read", read)]

        rpc_file = str(folder / "lightning-rpc")
        node = stack.enter_context(started("node", "benchmarks.programs.node", rpc_file, folder=folder))
        address_of(node, folder / "node.log")
        bench = Bench(
            stack.enter_context(gateway("gateway", rpc_file, folder, _ONE_PEER)),
            folder / "gateway-data",
            count,
        )
        lines += [await bench.replay(read, subscribers) for subscribers in (1, 4)]
        async with attached(path.parent, SIZE) as hook:
            lines.append(await bench.live(hook, live, stored))
            lines.append(await bench.live_at(hook, seconds, stored))
        return lines


def show(lines: list[Line]) -> None:
    """Print the table."""
    table = Table(title=f"Receiving, messages of {SIZE:,} bytes", title_justify="left", title_style="bold")
    for column in (
        "case",
        "messages/s",
        "of limit",
        "p50 ms",
        "p99 ms",
        "gateway µs",
        "load µs",
        "gateway MB",
    ):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for line in lines:
        values = (line.p50_ms, line.p99_ms, line.server_us, line.load_us, line.server_rss_mb)
        table.add_row(
            line.case,
            f"{line.messages_per_s:,.0f}",
            "-" if line.of_limit is None else f"{line.of_limit:.3f}",
            *("-" if value is None else f"{value:,.2f}" for value in values),
        )
    (Console() if sys.stdout.isatty() else Console(width=100)).print(table)


cli = App(name="benchmarks.inbox", help="How fast the gateway receives.")


@cli.default
def bench(
    *,
    count: Annotated[int, Parameter(help="Messages to replay.")] = 100_000,
    quick: Annotated[bool, Parameter(help="A small one, to see that it works.")] = False,
    json: Annotated[bool, Parameter(help="Print the results as JSON.")] = False,
    out: Annotated[Path, Parameter(help="Where the results are written.")] = results.LAST_INBOX,
) -> None:
    """Measure replay and live delivery, and print the table."""
    lines: list[Line] = []

    async def run() -> None:
        lines.extend(await (measure(500, 200, 0.2) if quick else measure(count, count // 2, 5.0)))

    loops.run(run())
    results.write(out, [asdict(line) for line in lines])
    if json:
        print(json_module.dumps([asdict(line) for line in lines]))
    else:
        show(lines)


@cli.command
def narrow(
    *,
    events: Annotated[int, Parameter(help="Events in the inbox.")] = 1_000_000,
    size: Annotated[int, Parameter(help="Bytes of each message.")] = 100,
) -> None:
    """Fill an inbox, and measure what narrow subscribers read of it; 10 million events take 2 GB for 2 minutes."""

    async def run() -> None:
        show_narrow(*await narrow_readers.measure(events, size))

    loops.run(run())


def show_narrow(filling: narrow_readers.Filling, readings: list[narrow_readers.Reading]) -> None:
    """Print how the inbox was filled, and the table of its readers."""
    print(
        f"Filled {filling.size_mb:,.0f} MB: {filling.first_tenth:.1f} µs of CPU an event in the first tenth,"
        f" {filling.last_tenth:.1f} in the last"
    )
    table = Table(title="Reading from the beginning", title_justify="left", title_style="bold")
    for column in ("subscriber wants", "events", "rows read", "first ms", "seconds", "CPU s"):
        table.add_column(column, justify="left" if column == "subscriber wants" else "right", no_wrap=True)
    for one in readings:
        table.add_row(
            one.case,
            f"{one.events:,}",
            f"{one.rows:,}",
            f"{1e3 * one.first_s:,.1f}",
            f"{one.seconds:,.3f}",
            f"{one.cpu_s:,.3f}",
        )
    (Console() if sys.stdout.isatty() else Console(width=100)).print(table)


def main() -> None:
    """Run the command line; end with its exit status."""
    end_children_on_sigterm()
    try:
        sys.exit(cli())
    except (OSError, StartError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
