"""gRPC and waiting, as the blocking client uses them: the same names as in `_aio_transport`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from custommsg import _core, _reconnect
from custommsg._status import from_rpc
from custommsg.errors import CustomMsgError
from custommsg.model import Outbound
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from grpc import _CallIterator  # exists only in grpc's types

    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

    Stub: TypeAlias = CustomMsgServiceStub
    Call: TypeAlias = _CallIterator[pb.SubscribeCustomMsgsResponse]

Outbounds: TypeAlias = Iterable[Outbound]
"""Messages to send, as `send_many` takes them."""

Rpc: TypeAlias = "grpc.UnaryUnaryMultiCallable[_Request, _Response]"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """Open a channel; without credentials it has no TLS."""
    if credentials is None:
        return grpc.insecure_channel(target, _core.CHANNEL_OPTIONS)
    return grpc.secure_channel(target, credentials, _core.CHANNEL_OPTIONS)


def call(rpc: Rpc[_Request, _Response], request: _Request, timeout: float, *, sends: bool) -> _Response:
    """Make a unary call.

    Args:
        rpc: the method.
        request: its request.
        timeout: seconds.
        sends: whether the call can send a message.

    Raises:
        CustomMsgError: it failed.
    """
    try:
        return rpc(request, timeout=timeout)
    except grpc.RpcError as error:
        raise from_rpc(error, sends=sends) from error


class Stream:
    """One connection of a subscription."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def first(self, seconds: float) -> pb.SubscribeCustomMsgsResponse:
        """Read the first response.

        Raises:
            CustomMsgError: the call failed, or there was no response in time.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.cancel()

        # A timeout of the call itself would end the subscription after the first response, too.
        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            return self.read()
        except CustomMsgError:
            if late.is_set():
                raise _reconnect.not_registered(seconds) from None
            raise
        finally:
            timer.cancel()

    def read(self) -> pb.SubscribeCustomMsgsResponse:
        """Read the next response.

        Raises:
            CustomMsgError: the call failed or was cancelled.
        """
        try:
            for response in self._call:
                return response
        except grpc.RpcError as error:
            raise from_rpc(error, sends=False) from error
        raise _reconnect.ended()

    def cancel(self) -> None:
        """End the call, and a `read` that waits."""
        self._call.cancel()


class Closed:
    """Whether a subscription is closed."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Close it."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether it is closed."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Wait until it is closed, or the time is over."""
        self._event.wait(seconds)
