"""`python -m benchmarks.outbox`: enqueue messages for peers that are away; then one of them comes back."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Final

import coincurve
import grpc
from cyclopts import App
from rich.console import Console
from rich.table import Table

from benchmarks.process import started
from benchmarks.usage import usage_of
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_testing import devnode

_PAYLOAD: Final = bytes(100)
_LIMITS: Final = {
    "CUSTOMMSG_OUTBOX_CALLER_ENTRIES": "100000000",
    "CUSTOMMSG_OUTBOX_CALLER_MB": "100000",
    "CUSTOMMSG_LOG_CALLS": "none",
}

app = App(name="benchmarks.outbox", help=__doc__)


@app.default
def main(entries: int = 1_000_000, peers: int = 10_000, batch: int = 256, streams: int = 2) -> int:
    """Measure the outbox of a gateway on an embedded node.

    Args:
        entries: Messages that wait at the end.
        peers: Peers that they are for; one of them comes back.
        batch: Messages in a request.
        streams: Streams that enqueue at once.
    """
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as folder:
        asyncio.run(_measure(Path(folder), entries, peers, batch, streams))
    return 0


async def _measure(folder: Path, entries: int, peers: int, batch: int, streams: int) -> None:
    async with devnode.run(folder / "peer") as peer:
        returning = peer.id
    async with devnode.run(folder / "node") as node:
        address = f"unix:{folder}/gateway.sock"
        arguments = ("serve", "--insecure", "--listen", address, "--rpc-file", str(node.rpc_file))
        with started("gateway", "custommsg_server", *arguments, folder=folder, env=_LIMITS) as gateway:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
                while not (await stub.GetInbox(pb.GetInboxRequest(), wait_for_ready=True)).attached:
                    pass
                idle = usage_of(gateway.pid)
                ids = [returning, *(_peer_id(number) for number in range(1, peers))]
                start = perf_counter()
                await asyncio.gather(
                    *(_enqueue(stub, ids, range(n, entries, streams), batch) for n in range(streams))
                )
                seconds = perf_counter() - start
                full = usage_of(gateway.pid)
                first, all_of_it = await _return(folder / "peer", node, entries // peers)
        size = sum(file.stat().st_size for file in (folder / "node").rglob("outbox.sqlite3*"))
    table = Table(
        title=f"{entries:,} messages of {len(_PAYLOAD) + 2} bytes for {peers:,} peers", show_header=False
    )
    table.add_row("enqueued a second", f"{entries / seconds:,.0f}")
    if idle is not None and full is not None:
        table.add_row("CPU of the gateway for each", f"{(full.cpu_s - idle.cpu_s) / entries * 1e6:.0f} us")
        table.add_row("memory, idle and with all of them", f"{idle.rss_mb:.0f} MB, {full.rss_mb:.0f} MB")
    table.add_row("on the disk", f"{size / 1e6:,.0f} MB")
    table.add_row("a returning peer's first message", f"{first * 1000:.0f} ms after it began to connect")
    table.add_row(f"all {entries // peers} of them", f"{all_of_it * 1000:.0f} ms")
    Console().print(table)


def _peer_id(number: int) -> bytes:
    return coincurve.PrivateKey((number + 1).to_bytes(32, "big")).public_key.format()


async def _enqueue(
    stub: custommsg_pb2_grpc.CustomMsgServiceAsyncStub, ids: list[bytes], numbers: range, batch: int
) -> None:
    async def requests() -> AsyncIterator[pb.EnqueueCustomMsgStreamRequest]:
        for at in range(0, len(numbers), batch):
            request = pb.EnqueueCustomMsgStreamRequest()
            for number in numbers[at : at + batch]:
                message = b"\x9c\x41" + number.to_bytes(4, "big") + _PAYLOAD[4:]
                request.messages.add(
                    outbound=pb.OutboundMsg(peer_id=ids[number % len(ids)], msg=message, number=number)
                )
            yield request

    async for response in stub.EnqueueCustomMsgStream(requests()):
        for result in response.results:
            if result.HasField("error"):
                sys.exit(f"benchmarks.outbox: {result.error.message}")


async def _return(folder: Path, node: devnode.DevNode, count: int) -> tuple[float, float]:
    """Have the peer come back; return the seconds until it has its first message, and all."""
    async with devnode.run(folder) as peer:
        start = time.perf_counter()
        await peer.connect(node)
        await peer.next_message(timeout=120)
        first = time.perf_counter() - start
        for _ in range(count - 1):
            await peer.next_message(timeout=120)
        return first, time.perf_counter() - start


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    app()
