"""SendCustomMsgStream, through the generated stub: batches of a fixed size, a bounded number in flight."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.job import Job
from benchmarks.load.channels import channels
from benchmarks.load.messages import message_of, peers_of
from benchmarks.load.meter import Meter
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone

IN_FLIGHT: Final = 1024
"""Messages of one stream that are unanswered, at most."""


async def stream(job: Job, meter: Meter) -> None:
    """Send on one stream for each connection."""
    async with channels(job) as opened, asyncio.TaskGroup() as group:
        for channel in opened:
            group.create_task(_Stream(job, meter, CustomMsgServiceStub(channel)).run())


class _Stream:
    """One stream."""

    def __init__(self, job: Job, meter: Meter, stub: CustomMsgServiceAsyncStub) -> None:
        self._batch = job.batch
        self._meter = meter
        self._message = message_of(job)
        self._peers = peers_of(job)
        self._call = stub.SendCustomMsgStream()
        self._number = 0
        self._due: dict[int, float] = {}  # by the number of a batch's last message
        self._in_flight = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Send until the meter is over, and take all results."""
        receiving = asyncio.create_task(self._receive())
        while not self._meter.is_over:
            if self._in_flight + self._batch > max(IN_FLIGHT, self._batch):
                self._room.clear()
                await self._room.wait()
                continue
            self._in_flight += self._batch
            await self._call.write(self._request())
        await self._call.done_writing()
        await receiving

    def _request(self) -> pb.SendCustomMsgStreamRequest:
        request = pb.SendCustomMsgStreamRequest()
        add, message, peers = request.messages.add, self._message, self._peers
        self._due[self._number + self._batch - 1] = perf_counter()
        for number in range(self._number, self._number + self._batch):
            add(number=number, peer_id=next(peers), msg=message)
        self._number += self._batch
        return request

    async def _receive(self) -> None:
        while isinstance(response := await self._call.read(), pb.SendCustomMsgStreamResponse):
            sent = 0
            for result in response.results:
                sent += bool(result.status)
                # Results may be gathered and cut otherwise than the batches were.
                if (due := self._due.pop(result.number, None)) is not None:
                    self._meter.took(due)
            self._meter.count(sent)
            self._meter.failed(len(response.results) - sent)
            self._in_flight -= len(response.results)
            self._room.set()
