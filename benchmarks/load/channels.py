"""Client connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from benchmarks.job import Job


@asynccontextmanager
async def channels(job: Job) -> AsyncIterator[Sequence[grpc.aio.Channel]]:
    """Open as many connections as a job asks for."""
    # Without its own pool of subchannels, gRPC would let all channels share one connection.
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(grpc.aio.insecure_channel(job.target, options))
            for _ in range(job.connections)
        ]
        for channel in opened:
            await channel.channel_ready()
        yield opened
