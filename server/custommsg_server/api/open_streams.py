"""Limits the number and the time of streams that need no credential: health watches and reflection."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

MAX_STREAMS: Final = 256
"""The maximum number of such streams: each takes about 22 kB of memory."""
MAX_STREAMS_OF_ONE: Final = 16
"""The maximum number of such streams on one connection."""
MAX_TIME: Final = 600.0
"""The maximum duration in seconds; then the client has to start again."""


class OpenStreams:
    """Counts the streams that need no credential."""

    def __init__(self) -> None:
        self._of_connection: Counter[str] = Counter()
        self.count = 0
        """How many there are now."""
        self.refused = 0
        """How many were refused."""

    def bounded(self, inner: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Awaitable[None]]:
        """Wrap a handler of such streams: a coroutine that writes, or a generator."""
        is_generator = inspect.isasyncgenfunction(inner)

        async def stream(request: Any, context: Context) -> None:
            connection = context.peer()
            await self._begin(context, connection)
            try:
                async with asyncio.timeout(MAX_TIME):
                    if is_generator:
                        async for response in inner(request, context):
                            await context.write(response)
                    else:
                        await inner(request, context)
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # the client has gone; gRPC cancels this task only afterwards
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"A stream without a credential may last {MAX_TIME:g} s. Start it again.",
                )
            finally:
                self._end(connection)

        return stream

    async def _begin(self, context: Context, connection: str) -> None:
        if self.count >= MAX_STREAMS or self._of_connection[connection] >= MAX_STREAMS_OF_ONE:
            self.refused += 1
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "Too many health watches or reflection streams are open. End some, or use Check instead.",
            )
        self.count += 1
        self._of_connection[connection] += 1

    def _end(self, connection: str) -> None:
        self.count -= 1
        self._of_connection[connection] -= 1
        if not self._of_connection[connection]:
            del self._of_connection[connection]
