"""Take jobs from stdin, one a line; write what was measured to stdout, one line each."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import grpc

from benchmarks.job import Job, Measured
from benchmarks.load.client import client
from benchmarks.load.direct import direct
from benchmarks.load.meter import Meter
from benchmarks.load.stream import stream
from benchmarks.load.tuned import tuned
from benchmarks.load.unary import unary
from benchmarks.programs import loops

LOADS: Final[Mapping[str, Callable[[Job, Meter], Awaitable[None]]]] = {
    "direct": direct,
    "tuned": tuned,
    "unary": unary,
    "stream": stream,
    "client": client,
}


async def measure(job: Job) -> Measured:
    """Run one job. What goes wrong is told, not raised: the other jobs go on."""
    meter = Meter(job)
    try:
        async with asyncio.timeout(job.warm_up + job.seconds + 30):
            await LOADS[job.load](job, meter)
    except Exception as error:
        return Measured(problem=_describe(error))
    return meter.result()


def _describe(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):  # of a task group: the first says enough
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Run jobs until there are no more."""

    async def run() -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print((await measure(Job.from_json(line))).to_json(), flush=True)
            gc.collect()  # between two jobs, so that none pays for the garbage of another

    loops.run(run())


if __name__ == "__main__":
    main()
