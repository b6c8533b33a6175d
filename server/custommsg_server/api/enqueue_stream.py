"""One EnqueueCustomMsgStream: batches in, results out, in order, and a bounded number in flight between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api import convert
from custommsg_server.api.call import Call
from custommsg_server.api.calls import is_drain, stopping
from custommsg_server.api.outbox_convert import enqueued_to_proto
from custommsg_server.api.stream import MAX_MEMORY, MAX_MESSAGES, too_many
from custommsg_server.core.memory import MemoryBudget, is_full, weight
from custommsg_server.core.queueing import Queueing
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.outbox import Draft
from custommsg_server.outbox.port import Enqueued

_Response = asyncio.Future[pb.EnqueueCustomMsgStreamResponse]


class EnqueueStream:
    """Serves one stream.

    Args:
        queueing: the core.
        memory: bounds what waits to be stored.
        call: the call.
        parse: reads one message; raises RelayError.
    """

    def __init__(
        self, queueing: Queueing, memory: MemoryBudget, call: Call, parse: Callable[[pb.OutboxMsg], Draft]
    ) -> None:
        self._queueing = queueing
        self._memory = memory
        self._call = call
        self._caller = call.caller
        self._parse = parse
        self._requests: deque[tuple[_Response, int, int]] = deque()
        """What is being stored, in order: its response, how many messages it has, and the memory it takes."""
        self._messages = 0
        self._held = 0
        self._changed = asyncio.Event()
        self._is_read = False

    async def run(self) -> None:
        """Read until the caller has finished, and answer each message that was read.

        Raises:
            RelayError: GATEWAY_STOPPING, after all that was read is answered.
        """
        await self._queueing.begin(self._caller)
        writing = asyncio.create_task(self._write())
        try:
            await self._read(writing)
            await self._finish(writing)
        except asyncio.CancelledError as error:
            if not is_drain(error):
                raise
            await self._finish(writing)
            raise stopping() from None
        finally:
            writing.cancel()
            for task, _, memory in self._requests:
                task.cancel()
                self._memory.release(self._caller.key, "streams", memory)

    async def _finish(self, writing: asyncio.Task[None]) -> None:
        """Wait until all that was read has its results."""
        self._is_read = True
        self._changed.set()
        await writing

    async def _read(self, writing: asyncio.Task[None]) -> None:
        while not writing.done():
            await self._memory.room(self._caller.key)
            request = await self._call.read()
            if request is grpc.aio.EOF:
                return
            count = len(request.messages)
            if count > MAX_MESSAGES:
                await self._finish(writing)
                raise too_many(count)
            if not count:
                continue
            memory = weight(count, request.ByteSize())
            fits = self._memory.fits(self._caller.key, memory)
            if fits:
                self._memory.hold(self._caller.key, "streams", memory)
            else:
                memory = 0
            try:
                await self._start(request, memory, fits)
            except asyncio.CancelledError:
                # It was read, so it gets its results even if the gateway stops now.
                self._add(_answered(_response(_numbers(request), [stopping()] * count)), count, memory)
                raise
            self._call.size += request.ByteSize()
            while (self._messages >= MAX_MESSAGES or self._held >= MAX_MEMORY) and not writing.done():
                self._changed.clear()
                await self._changed.wait()

    async def _start(self, request: pb.EnqueueCustomMsgStreamRequest, memory: int, fits: bool) -> None:
        """Enqueue what was read; what the limits hold back holds back all that follows, so that the order holds."""
        numbers = _numbers(request)
        if not fits:  # other streams of this caller have filled its part meanwhile
            self._add(_answered(_response(numbers, [is_full()] * len(numbers))), len(numbers), memory)
            return
        drafts: list[Draft] = []
        failed: dict[int, RelayError] = {}
        for place, one in enumerate(request.messages):
            try:
                drafts.append(self._parse(one))
            except RelayError as error:
                failed[place] = error
        storing = await self._queueing.enqueue_batch(self._caller, drafts)

        async def respond() -> pb.EnqueueCustomMsgStreamResponse:
            stored = iter(await storing)
            outcomes = [failed[n] if n in failed else next(stored) for n in range(len(numbers))]
            return _response(numbers, outcomes)

        self._add(asyncio.create_task(respond()), len(numbers), memory)

    def _add(self, response: _Response, count: int, memory: int) -> None:
        self._requests.append((response, count, memory))
        self._messages += count
        self._held += memory
        self._changed.set()

    async def _write(self) -> None:
        """Write the response to each request, in order."""
        while True:
            while self._requests:
                task, count, memory = self._requests[0]
                response = await task
                await self._call.write(response)
                self._requests.popleft()
                self._messages -= count
                self._held -= memory
                self._memory.release(self._caller.key, "streams", memory)
                self._changed.set()
            if self._is_read:
                return
            self._changed.clear()
            await self._changed.wait()


def _response(
    numbers: Sequence[int], outcomes: Sequence[Enqueued | RelayError]
) -> pb.EnqueueCustomMsgStreamResponse:
    response = pb.EnqueueCustomMsgStreamResponse()
    for number, outcome in zip(numbers, outcomes, strict=True):
        if isinstance(outcome, RelayError):
            failure = convert.failure_to_proto(number, outcome)
            response.results.add(number=number, error=failure.error, reason=failure.reason)
        else:
            response.results.add(number=number, entry=enqueued_to_proto(outcome))
    return response


def _answered(response: pb.EnqueueCustomMsgStreamResponse) -> _Response:
    future: _Response = asyncio.get_running_loop().create_future()
    future.set_result(response)
    return future


def _numbers(request: pb.EnqueueCustomMsgStreamRequest) -> list[int]:
    return [one.outbound.number for one in request.messages]
