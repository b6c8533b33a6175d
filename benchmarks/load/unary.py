"""One unary call for each message, through the generated stub."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

import grpc

from benchmarks.job import Job
from benchmarks.load.channels import channels
from benchmarks.load.messages import message_of, peers_of
from benchmarks.load.meter import Meter
from benchmarks.load.pace import pace
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone


async def unary(job: Job, meter: Meter) -> None:
    """Let `job.callers` call again and again, or call at `job.rate`."""
    message, peers = message_of(job), peers_of(job)

    async def send(stub: CustomMsgServiceAsyncStub, due: float) -> None:
        request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=next(peers), msg=message))
        try:
            await stub.SendCustomMsg(request, timeout=20)
        except grpc.aio.AioRpcError:
            meter.failed()
        else:
            meter.answered(due)

    async def call_again_and_again(stub: CustomMsgServiceAsyncStub) -> None:
        while not meter.is_over:
            await send(stub, perf_counter())

    async with channels(job) as opened:
        stubs: list[CustomMsgServiceAsyncStub] = [CustomMsgServiceStub(channel) for channel in opened]
        if job.rate:
            async with asyncio.TaskGroup() as group:
                await pace(job.rate, meter.over, lambda due: _discard(group.create_task(send(stubs[0], due))))
            return
        async with asyncio.TaskGroup() as group:
            for number in range(job.callers):
                group.create_task(call_again_and_again(stubs[number % len(stubs)]))


def _discard(_: object) -> None:
    """Nobody waits for it; its group does."""
