"""The subscription of the blocking client: the same as `_aio_subscription`, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc

from custommsg import _reconnect
from custommsg._cursor import Cursor, no_position
from custommsg._reconnect import Reconnects
from custommsg._status import from_rpc
from custommsg._subscription import E_co, SubscriptionBase
from custommsg.errors import CustomMsgError
from custommsg.events import Event
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

if TYPE_CHECKING:
    from grpc import _CallIterator  # exists in the types of grpc alone

_T = TypeVar("_T")


class Subscription(SubscriptionBase[E_co]):
    """What peers send, as it comes; made by `Client.subscribe`.

    An iterator, for one thread at a time; `close` may come from another. It is registered at the gateway when
    it is first iterated, or before that by `with` or `start`: do so where what is sent next will be answered.
    """

    def __init__(
        self,
        stub: CustomMsgServiceStub,
        cursor: Cursor,
        reconnects: Reconnects,
        ack: Callable[[str, int], int],
    ) -> None:
        super().__init__(cursor, reconnects)
        self._stub = stub
        self._ack = ack
        self._call: _CallIterator[pb.SubscribeCustomMsgsResponse] | None = None
        self._live = False
        self._closed = threading.Event()

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
            response = self._attempt(self._read)
            if response is not None:
                self._cursor.take(response)
        raise StopIteration

    def start(self) -> Self:
        """Wait until it is registered: what arrives at the gateway after that will be yielded.

        Raises:
            NotSent: the gateway could not be reached, or did not register it in time.
            PositionExpired: what follows the position is not kept any more.
            InvalidRequest: a filter, or the consumer's name, is none.
            CustomMsgError: refused for another reason.
        """
        while not self._live and not self._closed.is_set():
            self._attempt(self._register)
        return self

    def ack(self, event: Event | None = None) -> int:
        """Store at the gateway how far the consumer has come; return where it is now.

        Args:
            event: everything up to this one is dealt with; None: everything that was yielded.

        Raises:
            ValueError: the subscription has no `consumer`, or nothing to acknowledge yet.
            NotSent, CustomMsgError: as of `Client.ack`.
        """
        position = self._ack(self._cursor.consumer, self._to_ack(event))
        self._cursor.acked(position)
        return position

    def close(self) -> None:
        """End it, and an iteration that waits. Closing twice does no harm."""
        self._closed.set()
        call = self._call
        if call is not None:
            call.cancel()

    def _register(self) -> None:
        seconds = self._reconnects.time_to_register()
        self._call = call = self._stub.SubscribeCustomMsgs(self._cursor.request())
        if self._closed.is_set():  # meanwhile, by another thread that found no call to cancel
            call.cancel()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            call.cancel()

        timer = threading.Timer(seconds, give_up)  # a deadline of gRPC's would end the stream itself
        timer.daemon = True
        timer.start()
        try:
            if not self._cursor.registered(call.initial_metadata() or ()):
                next(call, None)  # raises what the gateway says instead
                raise no_position()
        except grpc.RpcError:
            if late.is_set():
                raise _reconnect.not_registered(seconds) from None
            raise
        finally:
            timer.cancel()
        self._live = True
        self._registered()

    def _read(self) -> pb.SubscribeCustomMsgsResponse | None:
        if self._call is None:  # closed before it was registered
            return None
        for response in self._call:
            self._reconnects.heard()
            return response
        raise _reconnect.ended()

    def _attempt(self, step: Callable[[], _T]) -> _T | None:
        """Take one step. After a failure, wait until the next try, or raise it if there is none."""
        try:
            return step()
        except grpc.RpcError as error:
            failure = from_rpc(error, sends=False)
            failure.__cause__ = error
        except CustomMsgError as error:
            failure = error
        except BaseException:  # KeyboardInterrupt
            self._drop()
            raise
        self._drop()
        if not self._closed.is_set():
            self._closed.wait(self._wait_after(failure))
        return None

    def _ack_idle(self) -> None:
        position = self._cursor.idle_ack()
        if position is not None:
            try:
                self._cursor.acked(self._ack(self._cursor.consumer, position))
            except CustomMsgError as failure:
                self._not_acked(failure)

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = None
        self._live = False
