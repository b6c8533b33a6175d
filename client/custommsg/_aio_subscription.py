"""The subscription of the asyncio client. `_cursor` and `_reconnect` have its decisions, `_aio_transport` its I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from custommsg._aio_transport import Closed, Stream
from custommsg._cursor import Ack, Cursor
from custommsg._reconnect import Reconnects
from custommsg._subscription import E_co, SubscriptionBase
from custommsg.errors import CustomMsgError
from custommsg.events import Event

if TYPE_CHECKING:
    from custommsg._aio_transport import Stub


class Subscription(SubscriptionBase[E_co]):
    """What peers send, as it comes; made by `Client.subscribe`.

    An iterator for one task at a time; `close` may be called from another. The gateway registers it when it is first
    iterated, or before that by `async with` or `start`: use one of them before you send something that will be
    answered.

    Cancelling a wait for the next event, as a timeout does, loses nothing: the next wait goes on after the last event.
    """

    def __init__(
        self,
        stub: Stub,
        cursor: Cursor,
        reconnects: Reconnects,
        ack: Callable[[str, str], Awaitable[str]],
    ) -> None:
        super().__init__(cursor, reconnects)
        self._stub = stub
        self._ack = ack
        self._stream: Stream | None = None
        self._live = False  # whether the stream is registered
        self._closed = Closed()

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
            await self._attempt(self._read)
        raise StopAsyncIteration

    async def start(self) -> Self:
        """Wait until it is registered: what arrives at the gateway after that will be yielded.

        Raises:
            NotSent: the gateway could not be reached, or did not register it in time.
            PositionError: it cannot start, or go on, at its position; the subclass says why.
            InvalidRequest: the filter, the position or the consumer's name is invalid.
            CustomMsgError: any other failure.
        """
        while not self._live and not self._closed.is_set():
            await self._attempt(self._register)
        return self

    async def ack(self, event: Event | None = None) -> str:
        """Store at the gateway how far the consumer has come.

        Args:
            event: everything up to this event is dealt with; None: everything that was yielded.

        Returns:
            The consumer's position now.

        Raises:
            ValueError: the subscription has no `consumer`, or there is nothing to acknowledge yet.
            NotSent, CustomMsgError: as `Client.ack`.
        """
        return await self._store(self._cursor.ack(event))

    async def close(self) -> None:
        """End it, and an iteration that waits. Closing twice does no harm."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    async def _register(self) -> None:
        seconds = self._reconnects.time_to_register()
        self._stream = stream = Stream(self._stub.SubscribeCustomMsgs(self._cursor.request()))
        if self._closed.is_set():  # `close` came between, and found no stream to cancel
            stream.cancel()
        self._cursor.registered(await stream.first(seconds))
        self._live = True
        self._registered()

    async def _read(self) -> None:
        if self._stream is not None:  # it is None if `close` came before it was registered
            self._cursor.take(await self._stream.read())
            self._reconnects.heard()

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take one step. If it fails, wait until the next attempt; raise the failure if there must not be one."""
        try:
            return await step()
        except CustomMsgError as error:
            failure = error
        except BaseException:  # cancelled, or Ctrl-C
            self._drop()
            raise
        self._drop()
        if not self._closed.is_set():
            await self._closed.wait(self._wait_after(failure))
        return None

    async def _ack_idle(self) -> None:
        ack = self._cursor.idle_ack()
        if ack is not None:
            try:
                await self._store(ack)
            except CustomMsgError as failure:
                self._not_acked(failure)

    async def _store(self, ack: Ack) -> str:
        position = await self._ack(self._cursor.consumer, ack.position)
        self._cursor.acked(ack)
        return position

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        self._stream = None
        self._live = False
