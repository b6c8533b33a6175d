"""The sender of the asyncio client. `_send_queue` decides what it writes."""

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
from custommsg._retry import checked_timeout
from custommsg._send_queue import Outgoing, SendQueue
from custommsg.errors import CustomMsgError
from custommsg.model import Outbound, Result, Sent
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone

    _Call = grpc.aio.StreamStreamCall[pb.SendCustomMsgStreamRequest, pb.SendCustomMsgStreamResponse]

END_TIME: Final = 5.0
"""Seconds that the rest of a stream may take after the last write."""


class Sender:
    """Sends many messages on one stream; made by `Client.sender`, closed by `async with` or `close`.

    Messages that many tasks send at the same time go out in one batch. A batch is written as soon as the one before it
    is, so a single message does not wait.

    Order: messages to one peer are sent in the order in which their `send` began to run, or not at all. To keep the
    order, a message that is retried holds back all messages after it, and a message is not retried after a later one to
    the same peer was sent.

    Stream: it is opened with the first message, and again after it broke, until the timeout of each message. Messages
    that were not written yet, or that a stopping gateway did not read, go out on the new stream.
    """

    def __init__(self, stub: CustomMsgServiceAsyncStub, *, timeout: float, retry: bool) -> None:
        self._stub = stub
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue = SendQueue(retry=retry, now=self._loop.time)
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
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send one custom message to one connected peer: like `Client.send`, at a fraction of its cost.

        If it is cancelled, a message that was not written yet is not sent; one that was may be.

        Args:
            peer: the peer's node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; empty by default.
            msg: the whole message with its type: 2 to 65,535 bytes, or the same in hex.
            node_id: our node to send from, in the same form as `peer`; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            InvalidRequest, PeerUnknown, PeerNotConnected, NodeUnknown, NotSent, NodeError: nothing was sent.
            OutcomeUnknown: it may have been sent: the stream broke, or the timeout passed, before its result.
            CustomMsgError: any other failure; nothing was sent.
            RuntimeError: the sender is closed.
            TypeError: the message is given in neither way, or in both.
        """
        future: asyncio.Future[Sent | CustomMsgError] = self._loop.create_future()
        raw = _core.message(type=type, payload=payload, msg=msg)
        message = _Awaited(_core.peer_id(peer), raw, self._deadline(timeout), _core.node_id(node_id), future)
        self._put(message)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._queue.abandon(message)
            raise
        if isinstance(outcome, CustomMsgError):
            raise outcome
        return outcome

    async def send_many(
        self, messages: Iterable[Outbound] | AsyncIterable[Outbound], *, timeout: float | None = None
    ) -> AsyncGenerator[Result]:
        """Send messages in order, and yield one result for each: like `Client.send_many`."""
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
                self._queue.abandon(outgoing)

    async def close(self) -> None:
        """Accept no more messages, wait for the outcome of those accepted, and end the stream.

        That takes no longer than the timeouts of the messages. Closing twice does no harm.
        """
        self._closing = True
        self._wake.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def abort(self) -> None:
        """End at once: messages not yet written are NotSent, those without a result OutcomeUnknown."""
        if self._running is not None:
            self._running.cancel()
        await self.close()

    def _deadline(self, timeout: float | None) -> float:
        return self._loop.time() + (self._timeout if timeout is None else checked_timeout(timeout))

    def _put(self, message: Outgoing) -> None:
        if self._closing:
            raise RuntimeError("this sender is closed")
        self._queue.put(message)
        self._changed()
        if self._running is None:
            self._running = self._loop.create_task(self._run())
            self._running.add_done_callback(self._ended)

    def _changed(self) -> None:
        """Wake the writer, and set the one timer for all deadlines."""
        self._wake.set()
        if self._queue.alarm < self._timer_at:
            self._stop_timer()
            self._timer_at = self._queue.alarm
            self._timer = self._loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._timer_at = inf
        self._queue.tick()
        self._changed()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self, _: object) -> None:
        self._closing = True
        self._queue.abort()
        self._stop_timer()

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if self._queue.has_work:
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
        self._queue.broke(_error_of(reading))
        self._changed()

    async def _write(self, call: _Call, reading: asyncio.Task[None]) -> None:
        with suppress(grpc.aio.AioRpcError):  # the reader gets it, too
            await call.wait_for_connection()  # until then nothing counts as written
        while not reading.done():
            request = self._queue.next_batch()
            if request is not None:
                if not await _written(call, request):
                    return
            elif self._queue or not self._closing:
                await self._wait()
            else:
                await call.done_writing()
                return

    async def _read(self, call: _Call) -> None:
        while isinstance(response := await call.read(), pb.SendCustomMsgStreamResponse):
            self._queue.take(response)
            self._changed()


async def _written(call: _Call, request: pb.SendCustomMsgStreamRequest) -> bool:
    """Write a request; return False if the stream has ended: the reader gets the reason."""
    # When the stream has ended, `call.write` replaces the gateway's status by INTERNAL
    # (https://github.com/grpc/grpc/issues/36066). Then a stopping gateway could not say that the rest was not sent. So
    # this writes as `call.write` does, without replacing the status. END_TIME bounds the wait for it.
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
    """A message whose sender waits for its outcome."""

    __slots__ = ("_future",)

    def __init__(
        self,
        peer_id: bytes,
        msg: bytes,
        deadline: float,
        node_id: bytes,
        future: asyncio.Future[Sent | CustomMsgError],
    ) -> None:
        super().__init__(peer_id, msg, deadline, node_id)
        self._future = future

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        if not self._future.done():  # cancelled, and the task that waits does not know yet
            self._future.set_result(outcome)
