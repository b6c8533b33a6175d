"""An open loop: messages are sent when they are due, however slow the answers are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from time import perf_counter


async def pace(rate: float, over: asyncio.Event, send: Callable[[float], None]) -> None:
    """Call `send` with the time at which a message is due, `rate` times a second, until it is over.

    `send` gets the time when it should have been called, even if it is called late: else a stall would hide
    itself, since each message that it delays would count from its late start ("coordinated omission").
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def tick() -> None:
        # A thread, because the timers of an event loop are no finer than a millisecond.
        start, number = perf_counter(), 0
        while not stop.is_set():
            due = start + number / rate
            if (wait := due - perf_counter()) > 0:
                time.sleep(wait)
            loop.call_soon_threadsafe(send, due)
            number += 1

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        await over.wait()
    finally:
        stop.set()
        thread.join()
