"""The node without a gateway: what a Python program reaches over one pipelined connection.

Plain asyncio and json, one request and one reply at a time, as one would write it; each reply is matched to
its request, as lightningd may answer in any order.
"""

from __future__ import annotations

import asyncio
import json
from time import perf_counter

from benchmarks.job import Job
from benchmarks.load.messages import message_of, peers_of
from benchmarks.load.meter import Meter
from benchmarks.load.pace import pace


async def direct(job: Job, meter: Meter) -> None:
    """Keep `job.callers` requests in flight on one connection, or send them at `job.rate`."""
    reader, writer = await asyncio.open_unix_connection(job.target, limit=1 << 20)
    message, peers = message_of(job), peers_of(job)
    unanswered: dict[int, float] = {}
    next_id = 0

    def send(due: float) -> None:
        nonlocal next_id
        request = {
            "jsonrpc": "2.0",
            "id": next_id,
            "method": "sendcustommsg",
            "params": {"node_id": next(peers).hex(), "msg": message.hex()},
        }
        unanswered[next_id] = due
        next_id += 1
        writer.write(json.dumps(request).encode())

    async def receive() -> None:
        while not meter.is_over or unanswered:
            reply = json.loads(await reader.readuntil(b"\n\n"))
            due = unanswered.pop(reply["id"])
            if "result" in reply:
                meter.answered(due)
            else:
                meter.failed()
            if not job.rate and not meter.is_over:
                send(perf_counter())
                await writer.drain()

    receiving = asyncio.create_task(receive())
    try:
        if job.rate:
            await pace(job.rate, meter.over, send)
        else:
            for _ in range(job.callers):
                send(perf_counter())
        async with asyncio.timeout(job.warm_up + job.seconds + 10):
            await receiving
    finally:
        receiving.cancel()
        writer.close()
