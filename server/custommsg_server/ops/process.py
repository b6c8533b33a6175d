"""Runs commands: on uvloop if it is installed, until a signal ends them; SIGHUP reads the settings again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import structlog

from custommsg_server.ops import logs
from custommsg_server.settings import RELOADABLE, Settings, SettingsError

log = structlog.get_logger()

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop if it is installed."""
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


@contextmanager
def on_hangup(
    settings: Settings, read: Callable[[], Settings], apply: Callable[[Settings], None]
) -> Iterator[None]:
    """Read the settings again at each SIGHUP, for as long as the context lasts.

    Args:
        settings: the settings at the start.
        read: reads them again; raises SettingsError.
        apply: applies those in `settings.RELOADABLE`.
    """
    current = settings

    def hangup() -> None:
        nonlocal current
        try:
            fresh = read()
        except SettingsError as error:
            log.error("the settings are invalid; the old ones stay in use", why=str(error))
            return
        changed = {name for name in Settings.model_fields if getattr(fresh, name) != getattr(current, name)}
        taken, left = changed & RELOADABLE, changed - RELOADABLE
        current = current.model_copy(update={name: getattr(fresh, name) for name in taken})
        apply(current)
        # A warning, so that it is logged at most levels: it is the only answer to the signal.
        log.warning("settings read again", changed=sorted(taken), only_at_a_restart=sorted(left))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hangup)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
