"""How a stream learns that the gateway stops: its task is cancelled, with a word that says so."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from custommsg_server.domain.errors import Reason, RelayError

_WORD: Final = "the gateway stops"


def drain(task: asyncio.Task[Any]) -> None:
    """Tell a stream's task to finish what it has begun, and to end."""
    task.cancel(_WORD)


def is_drain(error: asyncio.CancelledError) -> bool:
    """Whether a task was cancelled by `drain`; if so, it goes on until it has finished."""
    if error.args[:1] != (_WORD,):
        return False
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return True


def stopping() -> RelayError:
    """Make the error that ends the streams of a gateway that stops."""
    return RelayError(
        Reason.GATEWAY_STOPPING,
        "The gateway is stopping. Connect again, and go on after the last position or result that you got.",
        retry_after=1.0,
    )
