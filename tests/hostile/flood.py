"""Peers that send as much as the node reads, of all types and sizes, under many node ids."""

from __future__ import annotations

import argparse
import asyncio
import itertools
from contextlib import suppress
from pathlib import Path

from custommsg_testing import devnode
from hostile.actor import Job, run

SIZES = (0, 1, 30, 100, 1000, 10_000, 65_533)
RUN = 200
"""The maximum number of messages of one type and size in a row."""
EVEN, LEAVE, RENAME = 0.002, 0.01, 0.3
"""How likely it is after such a row to send an even type, which ends the connection; to leave; and then, to come back
as somebody else."""
HONEST_TYPE = 0x9C41
"""The type of the honest peer's messages."""


async def flood(job: Job, number: int, first: asyncio.Event) -> None:
    """Act as one peer after the other."""
    for life in itertools.count():
        folder = Path(job.arguments.folder) / f"{number}-{life}"
        with suppress(devnode.PeerError, devnode.OutboxFullError, OSError, TimeoutError):
            async with devnode.run(folder, strict=False) as peer:
                while True:
                    with suppress(devnode.PeerError, devnode.OutboxFullError, OSError, TimeoutError):
                        node_id = await peer.connect(job.arguments.node)
                        first.set()
                        await send_all(job, peer, node_id)
                    if job.draw.random() < RENAME:
                        break
                    await asyncio.sleep(0.1)
        job.count["new node ids"] += 1


async def send_all(job: Job, peer: devnode.DevNode, node_id: bytes) -> None:
    """Send until the connection ends."""
    draw, noise = job.draw, job.draw.randbytes(1 << 17)
    while True:
        size = draw.choice(SIZES)
        kind = draw.choice((HONEST_TYPE, draw.randrange(0x8001, 0x10000, 2), draw.randrange(1025, 0x8000, 2)))
        if draw.random() < EVEN:
            kind &= 0xFFFE
        start = draw.randrange(len(noise) - size)
        message = kind.to_bytes(2, "big") + noise[start : start + size]
        for _ in range(draw.randrange(1, RUN) if size < 10_000 else 20):
            await peer.send(node_id, message)
            job.count["messages"] += 1
            job.count["bytes"] += len(message)
        if draw.random() < LEAVE:
            job.count["left"] += 1
            await peer.disconnect(node_id)
            return


async def main(job: Job) -> None:
    """Flood the node."""
    first = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(job.arguments.peers):
            tasks.create_task(flood(job, number, first))
        await first.wait()
        job.ready()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--peers", type=int, required=True)
    run(parser, main)
