"""The subscription of the asyncio client. What it decides, `_cursor` and `_reconnect` decide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc.aio

from custommsg import _reconnect
from custommsg._cursor import Cursor, no_position
from custommsg._reconnect import Reconnects
from custommsg._status import from_rpc
from custommsg._subscription import E_co, SubscriptionBase
from custommsg.errors import CustomMsgError
from custommsg.events import Event
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone

    _Call = grpc.aio.UnaryStreamCall[pb.SubscribeCustomMsgsRequest, pb.SubscribeCustomMsgsResponse]

_T = TypeVar("_T")


class Subscription(SubscriptionBase[E_co]):
    """What peers send, as it comes; made by `Client.subscribe`.

    An iterator, for one task at a time. It is registered at the gateway when it is first iterated, or before
    that by `async with` or `start`: do so where what is sent next will be answered. To cancel a wait for the
    next event, as a timeout does, loses none: the next wait goes on behind the last event that was yielded.
    """

    def __init__(
        self,
        stub: CustomMsgServiceAsyncStub,
        cursor: Cursor,
        reconnects: Reconnects,
        ack: Callable[[str, int], Awaitable[int]],
    ) -> None:
        super().__init__(cursor, reconnects)
        self._stub = stub
        self._ack = ack
        self._call: _Call | None = None
        self._live = False
        self._closed = asyncio.Event()

    def __del__(self) -> None:
        # Who leaves the loop without closing does not keep a stream open: gRPC holds on to the call itself.
        if self._call is not None:
            with suppress(RuntimeError):  # the event loop is closed, and the stream with it
                self._call.cancel()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E_co:
        while not self._closed.is_set():
            event = self._cursor.next()
            if event is not None:
                return cast("E_co", event)
            await self.start()
            await self._ack_idle()
            response = await self._attempt(self._read())
            if response is not None:
                self._cursor.take(response)
        raise StopAsyncIteration

    async def start(self) -> Self:
        """Wait until it is registered: what arrives at the gateway after that will be yielded.

        Raises:
            NotSent: the gateway could not be reached, or did not register it in time.
            PositionExpired: what follows the position is not kept any more.
            InvalidRequest: a filter, or the consumer's name, is none.
            CustomMsgError: refused for another reason.
        """
        while not self._live and not self._closed.is_set():
            await self._attempt(self._register())
        return self

    async def ack(self, event: Event | None = None) -> int:
        """Store at the gateway how far the consumer has come; return where it is now.

        Args:
            event: everything up to this one is dealt with; None: everything that was yielded.

        Raises:
            ValueError: the subscription has no `consumer`, or nothing to acknowledge yet.
            NotSent, CustomMsgError: as of `Client.ack`.
        """
        position = await self._ack(self._cursor.consumer, self._to_ack(event))
        self._cursor.acked(position)
        return position

    async def close(self) -> None:
        """End it, and an iteration that waits. Closing twice does no harm."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def _register(self) -> None:
        seconds = self._reconnects.time_to_register()
        self._call = self._stub.SubscribeCustomMsgs(self._cursor.request())
        try:
            async with asyncio.timeout(seconds):
                if not self._cursor.registered(await self._call.initial_metadata()):
                    await self._call.read()  # raises what the gateway says instead
                    raise no_position()
        except TimeoutError:
            raise _reconnect.not_registered(seconds) from None
        self._live = True
        self._registered()

    async def _read(self) -> pb.SubscribeCustomMsgsResponse | None:
        if self._call is None:  # closed before it was registered
            return None
        response = await self._call.read()
        if not isinstance(response, pb.SubscribeCustomMsgsResponse):  # grpc.aio.EOF
            raise _reconnect.ended()
        self._reconnects.heard()
        return response

    async def _attempt(self, step: Awaitable[_T]) -> _T | None:
        """Take one step. After a failure, wait until the next try, or raise it if there is none."""
        try:
            return await step
        except grpc.aio.AioRpcError as error:
            failure = from_rpc(error, sends=False)
            failure.__cause__ = error
        except CustomMsgError as error:
            failure = error
        except asyncio.CancelledError:
            self._drop()
            if self._closed.is_set() and not _is_cancelled():
                return None  # it was the call that was cancelled, by `close`
            raise
        self._drop()
        if not self._closed.is_set():
            seconds = self._wait_after(failure)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), seconds)
        return None

    async def _ack_idle(self) -> None:
        position = self._cursor.idle_ack()
        if position is not None:
            try:
                self._cursor.acked(await self._ack(self._cursor.consumer, position))
            except CustomMsgError as failure:
                self._not_acked(failure)

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = None
        self._live = False


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
