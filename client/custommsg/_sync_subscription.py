# Generated from client/custommsg/_aio_subscription.py by `make sync`. Do not edit.
"""The subscription of the blocking client. `_cursor` and `_reconnect` have its decisions, `_sync_transport` its I/O."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from custommsg._cursor import Ack, Cursor
from custommsg._reconnect import Reconnects
from custommsg._subscription import E_co, SubscriptionBase
from custommsg._sync_transport import Closed, Stream
from custommsg.errors import CustomMsgError
from custommsg.events import Event

if TYPE_CHECKING:
    from custommsg._sync_transport import Stub


class Subscription(SubscriptionBase[E_co]):
    """What peers send, as it comes; made by `Client.subscribe`.

    An iterator for one thread at a time; `close` may be called from another. The gateway registers it when it is first
    iterated, or before that by `with` or `start`: use one of them before you send something that will be
    answered.
    """

    def __init__(
        self,
        stub: Stub,
        cursor: Cursor,
        reconnects: Reconnects,
        ack: Callable[[str, str], str],
    ) -> None:
        super().__init__(cursor, reconnects)
        self._stub = stub
        self._ack = ack
        self._stream: Stream | None = None
        self._live = False  # whether the stream is registered
        self._closed = Closed()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E_co:
        while not self._closed.is_set():
            event = self._cursor.next()
            if event is not None:
                return cast("E_co", event)
            self.start()
            self._ack_idle()
            self._attempt(self._read)
        raise StopIteration

    def start(self) -> Self:
        """Wait until it is registered: what arrives at the gateway after that will be yielded.

        Raises:
            NotSent: the gateway could not be reached, or did not register it in time.
            PositionError: it cannot start, or go on, at its position; the subclass says why.
            InvalidRequest: the filter, the position or the consumer's name is invalid.
            CustomMsgError: any other failure.
        """
        while not self._live and not self._closed.is_set():
            self._attempt(self._register)
        return self

    def ack(self, event: Event | None = None) -> str:
        """Store at the gateway how far the consumer has come.

        Args:
            event: everything up to this event is dealt with; None: everything that was yielded.

        Returns:
            The consumer's position now.

        Raises:
            ValueError: the subscription has no `consumer`, or there is nothing to acknowledge yet.
            NotSent, CustomMsgError: as `Client.ack`.
        """
        return self._store(self._cursor.ack(event))

    def close(self) -> None:
        """End it, and an iteration that waits. Closing twice does no harm."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _register(self) -> None:
        seconds = self._reconnects.time_to_register()
        self._stream = stream = Stream(self._stub.SubscribeCustomMsgs(self._cursor.request()))
        if self._closed.is_set():  # `close` came between, and found no stream to cancel
            stream.cancel()
        self._cursor.registered(stream.first(seconds))
        self._live = True
        self._registered()

    def _read(self) -> None:
        if self._stream is not None:  # it is None if `close` came before it was registered
            self._cursor.take(self._stream.read())
            self._reconnects.heard()

    def _attempt(self, step: Callable[[], None]) -> None:
        """Take one step. If it fails, wait until the next attempt; raise the failure if there must not be one."""
        try:
            return step()
        except CustomMsgError as error:
            failure = error
        except BaseException:  # Ctrl-C
            self._drop()
            raise
        self._drop()
        if not self._closed.is_set():
            self._closed.wait(self._wait_after(failure))
        return None

    def _ack_idle(self) -> None:
        ack = self._cursor.idle_ack()
        if ack is not None:
            try:
                self._store(ack)
            except CustomMsgError as failure:
                self._not_acked(failure)

    def _store(self, ack: Ack) -> str:
        position = self._ack(self._cursor.consumer, ack.position)
        self._cursor.acked(ack)
        return position

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        self._stream = None
        self._live = False
