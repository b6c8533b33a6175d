"""The interceptor of all calls: authentication, observers, and errors as statuses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from custommsg_server.access.access import Access
from custommsg_server.api.call import Call, Observer
from custommsg_server.api.open_streams import OpenStreams
from custommsg_server.api.status import abort, code_of
from custommsg_server.domain.caller import Caller
from custommsg_server.domain.errors import Reason, RelayError

log = structlog.get_logger()

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Behaviour = Callable[[Any, Any], Awaitable[Any]]

OPEN: Final = ("/grpc.", "/lnrpc.State/")
"""Health checks, also as in LND, and reflection: they need no credential, and the drain does not wait for them."""
NOT_SERVED: Final = "(not served)"
"""The label of methods that are not served, since callers choose their names."""
MAX_NAME: Final = 200
"""The maximum length of such a name in errors and in the log."""
_DRAIN: Final = "the gateway stops"
"""The message with which the task of a stream is cancelled when the gateway drains."""


def is_drain(error: asyncio.CancelledError) -> bool:
    """Return whether the task was cancelled because the gateway drains; if so, undo that, so that it can finish."""
    if error.args[:1] != (_DRAIN,):
        return False
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return True


def stopping() -> RelayError:
    """Make the error that ends streams when the gateway stops."""
    return RelayError(
        Reason.GATEWAY_STOPPING,
        "The gateway is stopping. Connect again, and continue after the last position or result that you received.",
        retry_after=1.0,
    )


class Calls(grpc.GenericRpcHandler):
    """Wraps each handler: authenticates the call, and turns a RelayError of the handler into its status.

    Any other exception is a bug: it is logged, and the caller gets no stack trace. gRPC asks it for the
    handler of each call; an interceptor would cost one more coroutine a call.

    Args:
        access: authenticates calls.
        timeout: the maximum duration of a unary call in seconds.
        observers: observe each call.
    """

    def __init__(self, access: Access, timeout: float, observers: Sequence[Observer] = ()) -> None:
        self._access = access
        self._timeout = timeout
        self._observers = observers
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self.open_streams = OpenStreams()
        self._is_draining = False
        self.in_flight = 0
        self.begun = 0
        """The number of all calls so far."""
        self._ended = asyncio.Event()

    async def drain(self) -> None:
        """End all streams, and wait until no call is in progress."""
        self._is_draining = True
        for task in self._streams:
            task.cancel(_DRAIN)
        while self.in_flight:
            self._ended.clear()
            await self._ended.wait()

    # The generated code adds its handlers here, as to a server, so that each of them is wrapped.

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve handlers."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Do nothing: the generic handlers include them."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the handler of a method, once."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        found = (one.service(handler_call_details) for one in self._handlers)
        handler = next((one for one in found if one is not None), None)
        if handler is None:
            # Not stored: callers could fill the memory with unknown methods.
            return grpc.unary_unary_rpc_method_handler(self._not_served(method[1:]))
        wrap = self._wrap_open if method.startswith(OPEN) else self._wrap
        return self._wrapped.setdefault(method, wrap(handler, method[1:]))

    def _wrap_open(self, handler: Handler, _: str) -> Handler:
        """Wrap a handler that needs no credential: its streams are limited, and the drain does not wait for them."""
        serializers = (handler.request_deserializer, handler.response_serializer)
        bounded = self.open_streams.bounded
        if handler.stream_stream is not None:
            inner = cast("Any", handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(bounded(inner), *serializers)
        if handler.unary_stream is not None:
            inner = cast("Any", handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(bounded(inner), *serializers)
        return handler

    def _wrap(self, handler: Handler, method: str) -> Handler:
        """Wrap a handler; the streams of this server are coroutines that write, not generators."""
        read, serializer = _reader(handler.request_deserializer, method), handler.response_serializer
        if handler.stream_stream is not None:
            inner = self._stream(cast("Behaviour", handler.stream_stream), method)
            return grpc.stream_stream_rpc_method_handler(inner, read, serializer)
        # A single request is parsed only after its caller was authenticated.
        if handler.unary_stream is not None:
            inner = self._stream(cast("Behaviour", handler.unary_stream), method, read)
            return grpc.unary_stream_rpc_method_handler(inner, None, _or_bytes(serializer))
        inner = self._unary(cast("Behaviour", handler.unary_unary), method, read)
        return grpc.unary_unary_rpc_method_handler(inner, None, serializer)

    def _unary(self, inner: Behaviour, method: str, read: Callable[[bytes], Any]) -> Behaviour:
        async def unary(request: Any, context: Context) -> Any:
            call, caller = Call(method, False, context, self._timeout, self._observers), None
            self._begin()
            try:
                call.caller = caller = self._enter(call)
                return await inner(read(request), call)
            except BaseException as error:
                del request
                await _fail(call, error)
                raise
            finally:
                self._end(call, caller)

        return unary

    def _stream(self, inner: Behaviour, method: str, read: Callable[[bytes], Any] | None = None) -> Behaviour:
        async def stream(request: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            call, caller = Call(method, True, context, math.inf, self._observers), None
            self._begin()
            self._streams.add(task)
            try:
                call.caller = caller = self._enter(call)
                await inner(read(request) if read else request, call)
            except BaseException as error:
                self._streams.discard(task)  # it is ending: a drain must not cancel its status
                is_ours = isinstance(error, asyncio.CancelledError) and is_drain(error)
                del request
                await _fail(call, stopping() if is_ours else error)
                raise
            finally:
                self._streams.discard(task)
                self._end(call, caller)

        return stream

    def _not_served(self, method: str) -> Behaviour:
        async def unary(request: Any, context: Context) -> None:
            call = Call(method[:MAX_NAME], False, context, self._timeout, self._observers, label=NOT_SERVED)
            try:
                await context.abort(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"This gateway does not serve {method[:MAX_NAME]}. It serves custommsg.v1, and the other contracts"
                    " in docs/dialects.md that the setting `dialects` switches on.",
                )
            finally:
                call.failed("UNIMPLEMENTED")
                call.end()

        return unary

    def _enter(self, call: Call) -> Caller:
        if self._is_draining:
            raise stopping()
        return self._access.enter(call.context, call)

    def _begin(self) -> None:
        self.in_flight += 1
        self.begun += 1

    def _end(self, call: Call, caller: Caller | None) -> None:
        if caller is not None:
            self._access.leave(caller)
        call.end()
        self.in_flight -= 1
        if self._is_draining:
            self._ended.set()


async def _fail(call: Call, error: BaseException) -> None:
    """Record how a call failed, and abort it with a status, unless its handler has done so.

    gRPC's context refers to the error, the error to its traceback, and the frames of the traceback to the context: a
    reference cycle. No frame in it may refer to the request, since the garbage collector counts objects, not bytes.
    """
    if isinstance(error, RelayError):
        error.__traceback__ = None
        call.failed(code_of(error).name, error)
        await abort(call.context, error)
    elif isinstance(error, grpc.aio.AbortError):
        call.failed(_code_name(call.context))
    elif isinstance(error, asyncio.CancelledError):
        call.failed("CANCELLED")  # by the caller, or its deadline passed
    elif isinstance(error, Exception):
        call.failed("INTERNAL")
        log.error("a call failed because of a bug; please report it", method=call.method, exc_info=error)
        error.__traceback__ = None
        await call.context.abort(
            grpc.StatusCode.INTERNAL,
            "The gateway failed because of a bug; its log has the details. The message may or may not have been sent.",
        )


def _reader(deserializer: Callable[[bytes], Any] | None, method: str) -> Callable[[bytes], Any]:
    """Return a deserializer that fails with INVALID_MESSAGE."""
    assert deserializer is not None

    def read(request: bytes) -> Any:
        try:
            return deserializer(request)
        except DecodeError:
            raise RelayError(
                Reason.INVALID_MESSAGE,
                f"The data is not a valid request of {method}. Use the stubs of this contract.",
            ) from None

    return read


def _or_bytes(serializer: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """Return a serializer that also takes a response which is bytes already."""
    assert serializer is not None
    return lambda response: response if type(response) is bytes else serializer(response)


_CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


def _code_name(context: Context) -> str:
    code: Any = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODE_NAMES.get(code, "UNKNOWN")
