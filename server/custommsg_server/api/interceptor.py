"""What every call passes through: it is observed, and its errors become statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog

from custommsg_server.access.entry import Access
from custommsg_server.api.call import Call, Observer
from custommsg_server.api.drain import drain, is_drain, stopping
from custommsg_server.api.status import abort, code_of
from custommsg_server.domain.errors import RelayError

log = structlog.get_logger()

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

NOT_OURS: Final = ("/grpc.",)
"""Health watches and reflection: streams that never end by themselves, and that no drain needs to wait for."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls in flight and turns a handler's RelayError into its status.

    Any other exception is a bug of ours: it is logged, and the caller sees no trace of it.

    Args:
        observers: are told of each call.
        access: lets calls in; None: all come in.
    """

    def __init__(self, observers: Sequence[Observer] = (), access: Access | None = None) -> None:
        self._observers = observers
        self._access = access
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._is_draining = False
        self.in_flight = 0
        self.begun = 0
        """How many calls there were."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self) -> None:
        """Have all streams end, and wait until no call is in flight."""
        self._is_draining = True
        for task in self._streams:
            drain(task)
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of a method, once."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(NOT_OURS):
            # Unknown methods are a caller's choice: remembering them would fill the memory.
            return handler
        return self._wrapped.setdefault(method, self._wrap(handler, method))

    def _wrap(self, handler: Handler, method: str) -> Handler:
        """Wrap a handler; the streams of this server are coroutines that write, not generators."""
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_stream is not None:
            inner = cast("Behaviour", handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(self._stream(inner, method), *serializers)
        if handler.unary_stream is not None:
            inner = cast("Behaviour", handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(self._stream(inner, method), *serializers)
        inner = cast("Behaviour", handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(self._unary(inner, method), *serializers)

    def _unary(self, inner: Behaviour, method: str) -> Behaviour:
        async def unary(request: Any, context: Context) -> Any:
            async with self._call(method, False, context):
                return await inner(request, context)

        return unary

    def _stream(self, inner: Behaviour, method: str) -> Behaviour:
        async def stream(request: Any, context: Context) -> None:
            async with self._call(method, True, context):
                task = asyncio.current_task()
                assert task is not None
                self._streams.add(task)
                try:
                    await inner(request, context)
                except asyncio.CancelledError as error:
                    if is_drain(error):
                        raise stopping() from None
                    raise
                finally:
                    self._streams.discard(task)

        return stream

    @asynccontextmanager
    async def _call(self, method: str, is_stream: bool, context: Context) -> AsyncIterator[None]:
        call = Call(method[1:], is_stream, context, self._observers)
        self.in_flight += 1
        self.begun += 1
        self._idle.clear()
        try:
            if self._is_draining:
                raise stopping()
            if self._access is None:
                yield
            else:
                with self._access.entered(context) as call.caller:
                    yield
        except RelayError as error:
            call.failed(code_of(error).name, error)
            await abort(context, error)
        except grpc.aio.AbortError:
            call.failed(_code_name(context))
            raise
        except asyncio.CancelledError:
            call.failed("CANCELLED")  # the caller has gone, or its deadline has passed
            raise
        except Exception:
            call.failed("INTERNAL")
            log.exception("a call failed for a reason of our own", method=method)
            await context.abort(
                grpc.StatusCode.INTERNAL,
                "The gateway failed; its log says why. Whether anything was sent is not known.",
            )
        finally:
            call.end()
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()


_CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


def _code_name(context: Context) -> str:
    code: Any = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODE_NAMES.get(code, "UNKNOWN")
