"""One SendCustomMsgStream: reads batches and writes results, with a limited number of messages in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api import convert
from custommsg_server.api.call import Call
from custommsg_server.api.calls import is_drain, stopping
from custommsg_server.core.memory import is_full, weight
from custommsg_server.core.relay import Relay
from custommsg_server.domain.errors import Reason, RelayError, overloaded
from custommsg_server.node.port import Outbound

MAX_MESSAGES: Final = 2048
"""The maximum number of messages in flight on one stream; with more, the gateway stops reading."""
MAX_MEMORY: Final = 12 << 20
"""The maximum memory of these messages in bytes: 4 MB of large messages."""
MAX_RESULTS: Final = 1000
"""Results in one response; a failure counts as ten, since it is larger."""


@dataclass(slots=True)
class _Request:
    """One request of the stream."""

    numbers: list[int]
    failed: dict[int, RelayError]
    """The errors of invalid messages, by place in the request."""
    batch: list[Outbound]
    """The valid messages, in order."""
    memory: int
    """Its memory in bytes."""
    keys: list[str] | None = None
    """The idempotency key of each in the batch, if one of them has a key."""


@dataclass(slots=True)
class _Response:
    """A response of the stream."""

    message: pb.SendCustomMsgStreamResponse
    weight: int = 0
    memory: int = 0
    """Bytes of memory that are released when it is written."""


class SendStream:
    """Serves one stream."""

    def __init__(self, relay: Relay, call: Call) -> None:
        self._relay = relay
        self._call = call
        self._caller = call.caller
        self._deadline = call.deadline
        self._memory = relay.memory
        self._messages = 0
        self._held = 0
        self._changed = asyncio.Event()
        self._out: deque[_Response] = deque()
        self._is_writing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Read until the caller has finished, and write a result for each message.

        Raises:
            RelayError: GATEWAY_STOPPING, after the results of all messages that were read.
        """
        try:
            await self._relay.begin_stream(self._caller, self._deadline)
            await self._read()
            await self._finish()
        except asyncio.CancelledError as error:
            if not is_drain(error):
                raise
            await self._finish()
            raise stopping() from None
        finally:
            for task in self._tasks:
                task.cancel()
            self._memory.release(self._caller.key, "streams", self._held)

    async def _read(self) -> None:
        while True:
            if not self._memory.has_room(self._caller.key):
                await self._memory.room(self._caller.key)
            message = await self._call.read()
            if message is grpc.aio.EOF:
                return
            count, size = len(message.messages), message.ByteSize()
            if count > MAX_MESSAGES:
                await self._finish()
                raise too_many(count)
            if not count:
                continue
            memory = weight(count, size)
            self._messages += count
            self._call.size += size
            if self._memory.fits(self._caller.key, memory):
                self._held += memory
                self._memory.hold(self._caller.key, "streams", memory)
                await self._start(self._parse(message, memory))
            else:
                # Other streams of this caller have used up its memory meanwhile. The results take little memory.
                self._call.count(Reason.OVERLOADED.name, count, "memory")
                self._add([one.number for one in message.messages], [is_full()] * count)
                self._spawn(self._write())
            while self._messages >= MAX_MESSAGES or self._held >= MAX_MEMORY:
                self._changed.clear()
                await self._changed.wait()

    def _parse(self, message: pb.SendCustomMsgStreamRequest, memory: int) -> _Request:
        request = _Request([], {}, [], memory)
        for one in message.messages:
            request.numbers.append(one.number)
            try:
                if one.node_id:
                    self._relay.serves(one.node_id)
                outbound = convert.outbound_from_proto(one)
                if one.idempotency_key or request.keys:
                    key = convert.key_from_proto(one.idempotency_key)
                    request.keys = request.keys or [""] * len(request.batch)
                    request.keys.append(key)
                request.batch.append(outbound)
            except RelayError as error:
                request.failed[len(request.numbers) - 1] = error
                self._call.count(error.reason.name)
        return request

    async def _start(self, request: _Request) -> None:
        # A batch that has to wait delays all that follow, so that the order is kept.
        refusals: Sequence[RelayError | None] | None
        try:
            refusals = await self._relay.admit(self._caller, request.batch, self._deadline)
        except RelayError as error:
            refusals = [error] * len(request.batch)
        except asyncio.CancelledError:
            # The request was read, so it gets results even if the gateway stops now.
            self._spawn(self._send(request, [stopping()] * len(request.batch)))
            raise
        if request.keys is None:
            self._spawn(self._send(request, refusals))
        else:
            # Its keys are looked up and stored before it is sent: what follows must not overtake it.
            await asyncio.shield(self._spawn(self._send(request, refusals)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, request: _Request, refusals: Sequence[RelayError | None] | None) -> None:
        if refusals is None:
            outcomes: Sequence[str | RelayError] = await self._relay.send_batch(
                self._caller, request.batch, self._deadline, request.keys or ()
            )
        else:
            outcomes = await self._send_rest(request.batch, refusals, request.keys)
        self._call.count_outcomes(outcomes)
        if request.failed:
            left = iter(outcomes)
            outcomes = [
                request.failed[place] if place in request.failed else next(left)
                for place in range(len(request.numbers))
            ]
        self._add(request.numbers, outcomes, request.memory)
        await self._write()

    def _add(self, numbers: Sequence[int], outcomes: Sequence[str | RelayError], memory: int = 0) -> None:
        """Add results to those that wait to be written."""
        response = self._out[-1] if self._out else self._next_response()
        for number, outcome in zip(numbers, outcomes, strict=True):
            # gRPC clients accept responses of up to 4 MB, and a failure takes some 300 bytes.
            if response.weight >= MAX_RESULTS:
                response = self._next_response()
            if isinstance(outcome, RelayError):
                response.message.results.append(convert.failure_to_proto(number, outcome))
                response.weight += 10
            else:
                response.message.results.add(number=number, status=outcome)
                response.weight += 1
        response.memory += memory

    def _next_response(self) -> _Response:
        response = _Response(pb.SendCustomMsgStreamResponse())
        self._out.append(response)
        return response

    async def _write(self) -> None:
        """Write all results; those that are added meanwhile are written together in the next response."""
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._out:
                response = self._out.popleft()
                await self._call.write(response.message)
                self._messages -= len(response.message.results)
                self._held -= response.memory
                self._memory.release(self._caller.key, "streams", response.memory)
                self._changed.set()
        finally:
            self._is_writing = False

    async def _send_rest(
        self, batch: list[Outbound], refusals: Sequence[RelayError | None], keys: list[str] | None
    ) -> list[str | RelayError]:
        """Send the messages that were not refused, in order."""
        allowed = [one for one, refusal in zip(batch, refusals, strict=True) if refusal is None]
        keys = keys and [key for key, refusal in zip(keys, refusals, strict=True) if refusal is None]
        sent = iter(
            await self._relay.send_batch(self._caller, allowed, self._deadline, keys or ()) if allowed else ()
        )
        return [next(sent) if refusal is None else refusal for refusal in refusals]

    async def _finish(self) -> None:
        """Wait until each message that was read has its result."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def too_many(count: int) -> RelayError:
    """Make the error for a request with more than MAX_MESSAGES messages."""
    return overloaded(
        "request_messages",
        f"The request has {count:,} messages; {MAX_MESSAGES:,} are allowed. Send fewer in one request.",
        None,
    )
