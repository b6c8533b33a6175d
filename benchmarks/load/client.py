"""The client library, with many callers at once whose messages it gathers into batches by itself."""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.job import Job
from benchmarks.load.messages import TYPE, message_of, peers_of
from benchmarks.load.meter import Meter
from custommsg import CustomMsgError, aio


async def client(job: Job, meter: Meter) -> None:
    """Let `job.callers` send again and again."""
    payload, peers = message_of(job)[2:], peers_of(job)

    async with aio.connect(job.target) as connected, connected.sender() as sender:

        async def send_again_and_again() -> None:
            while not meter.is_over:
                due = perf_counter()
                try:
                    await sender.send(next(peers), type=TYPE, payload=payload)
                except CustomMsgError:
                    meter.failed()
                else:
                    meter.answered(due)

        async with asyncio.TaskGroup() as group:
            for _ in range(job.callers):
                group.create_task(send_again_and_again())
