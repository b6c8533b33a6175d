"""What every call passes through: it is counted, and its errors become statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog

from custommsg_server.errors import RelayError
from custommsg_server.rpc.status import abort

log = structlog.get_logger()

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls in flight and turns a handler's RelayError into its status.

    Any other exception is a bug of ours: it is logged, and the caller sees no trace of it.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is in flight."""
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
        if handler is None or handler.unary_unary is None:
            # Unknown methods are a caller's choice, so remembering them would fill the memory; health watches
            # and reflection are streams that no drain needs to wait for.
            return handler
        return self._wrapped.setdefault(method, self._wrap(handler, method))

    def _wrap(self, handler: Handler, method: str) -> Handler:
        inner = cast("Callable[[Any, Context], Awaitable[Any]]", handler.unary_unary)

        async def unary(request: Any, context: Context) -> Any:
            self.in_flight += 1
            self._idle.clear()
            try:
                return await inner(request, context)
            except RelayError as error:
                await abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception:
                log.exception("a call failed for a reason of our own", method=method)
                await context.abort(
                    grpc.StatusCode.INTERNAL,
                    "The gateway failed; its log says why. Whether anything was sent is not known.",
                )
            finally:
                self.in_flight -= 1
                if not self.in_flight:
                    self._idle.set()

        return grpc.unary_unary_rpc_method_handler(
            unary, handler.request_deserializer, handler.response_serializer
        )
