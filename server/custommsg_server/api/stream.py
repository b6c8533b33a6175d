"""One SendCustomMsgStream: batches in, results out, a bounded number in flight between."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api import convert
from custommsg_server.api.call import current
from custommsg_server.api.drain import is_drain, stopping
from custommsg_server.api.status import status_of
from custommsg_server.core.relay import Relay
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.node.port import Outbound

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

MAX_MESSAGES: Final = 2048
"""Messages of one stream that may be in flight; then nothing more is read, and the caller is held back."""
MAX_BYTES: Final = 4 << 20
"""Bytes of them."""
MAX_RESULTS: Final = 1000
"""Results in one response."""


class SendStream:
    """Serves one stream.

    Args:
        relay: the core.
        context: the call.
        deadline: of the whole stream, in seconds of the loop's clock; may be infinite.
    """

    def __init__(self, relay: Relay, context: Context, deadline: float) -> None:
        self._relay = relay
        self._context = context
        self._deadline = deadline
        self._call = current()
        self._messages = 0
        self._bytes = 0
        self._changed = asyncio.Event()
        self._out: list[pb.SendResult] = []
        self._out_bytes = 0
        self._is_writing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Read until the caller has finished, and answer each message that was read.

        Raises:
            RelayError: GATEWAY_STOPPING, after all that was read is answered.
        """
        try:
            await self._relay.begin_stream(self._deadline)
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

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            if len(request.messages) > MAX_MESSAGES:
                await self._finish()
                raise _too_many(len(request.messages))
            results: list[pb.SendResult | None] = []
            batch: list[Outbound] = []
            for message in request.messages:
                try:
                    batch.append(convert.outbound_from_proto(message))
                    results.append(None)
                except RelayError as error:
                    results.append(_failure(message.number, error))
                    self._call.count(error.reason.name)
            numbers = [message.number for message in request.messages]
            size = request.ByteSize()
            self._call.size += size
            self._messages += len(numbers)
            self._bytes += size
            await self._start(numbers, results, batch, size)
            while self._messages >= MAX_MESSAGES or self._bytes >= MAX_BYTES:
                self._changed.clear()
                await self._changed.wait()

    async def _start(
        self, numbers: list[int], results: list[pb.SendResult | None], batch: list[Outbound], size: int
    ) -> None:
        # What the limits hold back holds back all that follows: else the order to a peer would be lost.
        refusals: Sequence[RelayError | None] | None
        try:
            refusals = await self._relay.admit(batch, self._deadline)
        except RelayError as error:
            refusals = [error] * len(batch)
        except asyncio.CancelledError:
            # It was read, so it gets its results even if the gateway stops now.
            self._spawn(self._send(numbers, results, batch, size, [stopping()] * len(batch)))
            raise
        self._spawn(self._send(numbers, results, batch, size, refusals))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(
        self,
        numbers: list[int],
        results: list[pb.SendResult | None],
        batch: list[Outbound],
        size: int,
        refusals: Sequence[RelayError | None] | None,
    ) -> None:
        if refusals is None:
            outcomes: Sequence[str | RelayError] = await self._relay.send_batch(batch, self._deadline)
        else:
            outcomes = await self._send_rest(batch, refusals)
        self._call.count_outcomes(outcomes)
        left = iter(outcomes)
        self._out += [
            _result(number, next(left)) if result is None else result
            for number, result in zip(numbers, results, strict=True)
        ]
        self._out_bytes += size
        if not self._is_writing:
            await self._write()

    async def _write(self) -> None:
        """Write the results that there are; those that come meanwhile go together into the next response."""
        self._is_writing = True
        try:
            while self._out:
                # Not more than a client takes at once, which gRPC sets to 4 MB: a failure has some 300 bytes.
                results, self._out = self._out[:MAX_RESULTS], self._out[MAX_RESULTS:]
                size, self._out_bytes = (0, self._out_bytes) if self._out else (self._out_bytes, 0)
                await self._context.write(pb.SendCustomMsgStreamResponse(results=results))
                self._messages -= len(results)
                self._bytes -= size
                self._changed.set()
        finally:
            self._is_writing = False

    async def _send_rest(
        self, batch: list[Outbound], refusals: Sequence[RelayError | None]
    ) -> list[str | RelayError]:
        """Send what was not refused, in order."""
        allowed = [one for one, refusal in zip(batch, refusals, strict=True) if refusal is None]
        sent = iter(await self._relay.send_batch(allowed, self._deadline) if allowed else ())
        return [next(sent) if refusal is None else refusal for refusal in refusals]

    async def _finish(self) -> None:
        """Wait until each message that was read has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _result(number: int, outcome: str | RelayError) -> pb.SendResult:
    if isinstance(outcome, RelayError):
        return _failure(number, outcome)
    return pb.SendResult(number=number, status=outcome)


def _failure(number: int, error: RelayError) -> pb.SendResult:
    return pb.SendResult(number=number, error=status_of(error))


def _too_many(count: int) -> RelayError:
    return RelayError(
        Reason.OVERLOADED,
        f"A request has {count:,} messages; {MAX_MESSAGES:,} are allowed. None of them was sent: send fewer at once.",
        metadata={"limit": "request_messages"},
    )
