"""How a command runs: on uvloop where it is installed, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from custommsg_server.ops import logs

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)
    finally:
        logs.flush()


async def until_signal(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run something until SIGTERM or Ctrl-C; a second signal cancels it.

    Args:
        work: what to run; it ends soon after the event it is given is set.
    """
    stop = asyncio.Event()
    running = asyncio.ensure_future(work(stop))

    def end() -> None:
        if stop.is_set():
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    with suppress(asyncio.CancelledError):
        await running
