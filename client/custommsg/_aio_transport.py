"""gRPC and waiting, as the asyncio client uses them.

`_sync_transport` has the same names for the blocking client. Everything else in `aio` and `_aio_subscription` is the
same for both, and `make sync` generates the blocking twin of these two modules.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc
import grpc.aio

from custommsg import _core, _reconnect
from custommsg._status import from_rpc
from custommsg.errors import NotSent, Reason
from custommsg.model import Outbound
from custommsg.v1 import custommsg_pb2 as pb

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists only in the .pyi

    Stub: TypeAlias = CustomMsgServiceAsyncStub
    Call: TypeAlias = grpc.aio.UnaryStreamCall[pb.SubscribeCustomMsgsRequest, pb.SubscribeCustomMsgsResponse]

Outbounds: TypeAlias = Iterable[Outbound] | AsyncIterable[Outbound]
"""Messages to send, as `send_many` takes them."""

Rpc: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Open a channel; without credentials it has no TLS."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, _core.CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, _core.CHANNEL_OPTIONS)


async def call(rpc: Rpc[_Request, _Response], request: _Request, timeout: float, *, sends: bool) -> _Response:
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
        return await rpc(request, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, sends=sends) from error


class Stream:
    """One connection of a subscription."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        # gRPC itself keeps a reference to a call that is not finished.
        with suppress(RuntimeError):  # the event loop is closed, and the call with it
            self.cancel()

    async def first(self, seconds: float) -> pb.SubscribeCustomMsgsResponse:
        """Read the first response.

        Raises:
            CustomMsgError: the call failed, or there was no response in time.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self.read()
        except TimeoutError:
            raise _reconnect.not_registered(seconds) from None

    async def read(self) -> pb.SubscribeCustomMsgsResponse:
        """Read the next response.

        Raises:
            CustomMsgError: the call failed or was cancelled.
        """
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, sends=False) from error
        except asyncio.CancelledError:
            if _is_task_cancelled():
                raise
            # It is the call that was cancelled.
            raise NotSent(Reason.NOT_SENT, grpc.StatusCode.CANCELLED, "The call was cancelled.") from None
        if not isinstance(response, pb.SubscribeCustomMsgsResponse):  # grpc.aio.EOF
            raise _reconnect.ended()
        return response

    def cancel(self) -> None:
        """End the call, and a `read` that waits."""
        self._call.cancel()


class Closed:
    """Whether a subscription is closed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Close it."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether it is closed."""
        return self._event.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait until it is closed, or the time is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)


def _is_task_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
