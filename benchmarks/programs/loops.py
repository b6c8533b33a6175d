"""The event loop of all programs alike: uvloop where it is installed, as in the gateway."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment, unused-ignore]  # an extra, and none for some platforms


def name() -> str:
    """Return which loop it is."""
    return "uvloop" if uvloop is not None else "asyncio"


def run(main: Coroutine[None, None, None]) -> None:
    """Run a coroutine to its end."""
    if uvloop is not None:
        uvloop.run(main)
    else:
        asyncio.run(main)


async def until_stopped(address: str) -> None:
    """Say that the program is ready, and where; wait until it is to end."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    await stop.wait()
