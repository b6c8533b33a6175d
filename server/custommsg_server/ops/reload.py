"""SIGHUP: the settings are read again, and those that may change while the gateway runs do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from custommsg_server.settings import RELOADABLE, Settings, SettingsError

log = structlog.get_logger()


@contextmanager
def on_hangup(
    settings: Settings, read: Callable[[], Settings], apply: Callable[[Settings], None]
) -> Iterator[None]:
    """Read the settings again at each SIGHUP, for as long as the context lasts.

    Args:
        settings: those that the gateway was started with.
        read: reads them again; raises SettingsError.
        apply: takes those of `config.RELOADABLE`.
    """
    current = settings

    def hangup() -> None:
        nonlocal current
        try:
            fresh = read()
        except SettingsError as error:
            log.error("the settings are wrong; those from before stay", why=str(error))
            return
        changed = {name for name in Settings.model_fields if getattr(fresh, name) != getattr(current, name)}
        taken, left = changed & RELOADABLE, changed - RELOADABLE
        current = current.model_copy(update={name: getattr(fresh, name) for name in taken})
        apply(current)
        # A warning, so that it is seen at most levels: it answers whoever sent the signal.
        log.warning("settings read again", changed=sorted(taken), only_at_a_restart=sorted(left))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hangup)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
