"""The sender of the asyncio client. What it decides, `_outbox` decides."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc.aio

from custommsg import _core
from custommsg._bulk import Answer, Bulk
from custommsg._outbox import Outbox, Outgoing
from custommsg._retry import checked_timeout
from custommsg.errors import CustomMsgError
from custommsg.model import Outbound, Result, Sent
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone

    _Call = grpc.aio.StreamStreamCall[pb.SendCustomMsgStreamRequest, pb.SendCustomMsgStreamResponse]

END_TIME: Final = 5.0
"""Seconds that the rest of a stream may take when nothing more is written to it."""


class Sender:
    """Sends many messages on one stream; made by `Client.sender`, closed by `async with` or `close`.

    What many tasks send at once goes out together. A batch leaves as soon as the one before it was written,
    so a message that is alone waits for nothing.

    Order: messages to one peer are sent in the order in which their `send` began to run, or not at all. To
    keep it, a message that is tried again holds back all that follow it, and one that was overtaken is not.

    The stream: it is opened with the first message and anew after it broke, until the timeout of each
    message. What was not written yet, or what a stopping gateway left unread, goes out on the new one.
    """

    def __init__(self, stub: CustomMsgServiceAsyncStub, *, timeout: float, retry: bool) -> None:
        self._stub = stub
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(retry=retry, now=self._loop.time)
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if error is None else self.abort())

    async def send(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send one custom message to one connected peer: as `Client.send`, at a part of its cost.

        To cancel it takes the message back if it was not written yet; if it was, it may be sent.

        Args:
            peer: its node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; none by default.
            msg: the whole message with its type, 2 to 65,535 bytes, or the same in hex.
            timeout: seconds, all tries together; None for the client's.

        Raises:
            InvalidRequest, PeerUnknown, PeerNotConnected, NotSent, NodeError: nothing was sent.
            OutcomeUnknown: it may have been sent: the stream broke, or the timeout passed, before its result.
            CustomMsgError: refused for another reason; nothing was sent.
            RuntimeError: the sender is closed.
        """
        future: asyncio.Future[Sent | CustomMsgError] = self._loop.create_future()
        raw = _core.message(type=type, payload=payload, msg=msg)
        message = _Awaited(_core.node_id(peer), raw, self._deadline(timeout), future)
        self._put(message)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._outbox.abandon(message)
            raise
        if isinstance(outcome, CustomMsgError):
            raise outcome
        return outcome

    async def send_many(
        self, messages: Iterable[Outbound] | AsyncIterable[Outbound], *, timeout: float | None = None
    ) -> AsyncGenerator[Result]:
        """Send messages in order, and yield what became of each: as `Client.send_many`."""
        answers: deque[Answer] = deque()
        ready, room = asyncio.Event(), asyncio.Event()

        def deliver(answer: Answer) -> None:
            answers.append(answer)
            ready.set()

        bulk = Bulk(deliver)

        async def take(message: Outbound) -> None:
            while bulk.is_full:
                room.clear()
                await room.wait()
            outgoing = bulk.begin(message, self._deadline(timeout))
            if outgoing.awaited:
                self._put(outgoing)

        async def feed() -> None:
            if isinstance(messages, AsyncIterable):
                async for message in messages:
                    await take(message)
            else:
                for message in messages:
                    await take(message)

        feeding = asyncio.create_task(feed())
        feeding.add_done_callback(lambda _: ready.set())
        try:
            while bulk.unfinished or not feeding.done():
                while answers:
                    yield bulk.result(answers.popleft())
                    room.set()
                ready.clear()
                if bulk.unfinished or not feeding.done():
                    await ready.wait()
            await feeding
        finally:
            feeding.cancel()
            for outgoing in bulk.unfinished.values():
                self._outbox.abandon(outgoing)

    async def close(self) -> None:
        """Take nothing more, wait for the outcome of what was taken, and end the stream.

        That takes no longer than the timeouts of the messages. Closing twice does no harm.
        """
        self._closing = True
        self._wake.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def abort(self) -> None:
        """End at once: what was not written is NotSent, what has no result yet OutcomeUnknown."""
        if self._running is not None:
            self._running.cancel()
        await self.close()

    def _deadline(self, timeout: float | None) -> float:
        return self._loop.time() + (self._timeout if timeout is None else checked_timeout(timeout))

    def _put(self, message: Outgoing) -> None:
        if self._closing:
            raise RuntimeError("this sender is closed")
        self._outbox.put(message)
        self._changed()
        if self._running is None:
            self._running = self._loop.create_task(self._run())
            self._running.add_done_callback(self._ended)

    def _changed(self) -> None:
        """Have the writer look, and the one timer for all deadlines set."""
        self._wake.set()
        if self._outbox.alarm < self._timer_at:
            self._stop_timer()
            self._timer_at = self._outbox.alarm
            self._timer = self._loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._timer_at = inf
        self._outbox.tick()
        self._changed()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self, _: object) -> None:
        self._closing = True
        self._outbox.abort()
        self._stop_timer()

    async def _run(self) -> None:
        while self._outbox or not self._closing:
            if self._outbox.has_work:
                await self._stream()
            else:
                await self._wait()

    async def _wait(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _stream(self) -> None:
        """Open a stream, and write and read on it until it ends."""
        call: _Call = self._stub.SendCustomMsgStream()
        reading = asyncio.create_task(self._read(call))
        reading.add_done_callback(lambda _: self._wake.set())
        try:
            await self._write(call, reading)
            await asyncio.wait({reading}, timeout=END_TIME)
        finally:
            call.cancel()
            reading.cancel()
        self._outbox.broke(_error_of(reading))
        self._changed()

    async def _write(self, call: _Call, reading: asyncio.Task[None]) -> None:
        with suppress(grpc.aio.AioRpcError):  # the reader hears it, too
            await call.wait_for_connection()  # until then nothing counts as written
        while not reading.done():
            request = self._outbox.next_batch()
            if request is not None:
                if not await _written(call, request):
                    return
            elif self._outbox or not self._closing:
                await self._wait()
            else:
                await call.done_writing()
                return

    async def _read(self, call: _Call) -> None:
        while isinstance(response := await call.read(), pb.SendCustomMsgStreamResponse):
            self._outbox.take(response)
            self._changed()


async def _written(call: _Call, request: pb.SendCustomMsgStreamRequest) -> bool:
    """Write a request; False if the stream has ended instead: the reader hears why."""
    # A write that meets the end of its stream makes `call.write` set the status INTERNAL, and the gateway's own
    # is lost (https://github.com/grpc/grpc/issues/36066): with it the word of a stopping gateway that the rest
    # was not sent. So we write as it does, without that; END_TIME bounds the wait for a status.
    write = getattr(getattr(call, "_cython_call", None), "send_serialized_message", None)
    raw = request.SerializeToString()
    try:
        await (call.write(request) if write is None else write(raw))
    except Exception:
        return False
    return True


def _error_of(reading: asyncio.Task[None]) -> grpc.RpcError | None:
    if not reading.done() or reading.cancelled():
        return None
    error = reading.exception()
    if error is not None and not isinstance(error, grpc.aio.AioRpcError):
        raise error
    return error


class _Awaited(Outgoing):
    """A message whose sender waits."""

    __slots__ = ("_future",)

    def __init__(
        self, node_id: bytes, msg: bytes, deadline: float, future: asyncio.Future[Sent | CustomMsgError]
    ) -> None:
        super().__init__(node_id, msg, deadline)
        self._future = future

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        if not self._future.done():  # cancelled, and the task that waits does not know yet
            self._future.set_result(outcome)
