"""Faults around the gateway: killed processes, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hostile.honest import Honest
from hostile.programs import Gateway, Node
from hostile.record import CONSUMER_AWAY, FULL_DISK, KILL_GATEWAY, KILL_NODE, Outage, Record

CLOCK_JUMP: Final = "clock jumps"
EVERY: Final = {KILL_GATEWAY: 11.0, KILL_NODE: 19.0, FULL_DISK: 17.0, CLOCK_JUMP: 13.0, CONSUMER_AWAY: 23.0}
"""The approximate time between two faults of a kind; each attack has at least one of each kind."""
JUMPS: Final = ("+31d", "-1d", "+400d", "+1h", "-30d")
"""31 days are longer than the retention."""


class Faults:
    """Causes faults at random times.

    Args:
        record: where to record them.
        draw: the source of random numbers.
        gateway: the gateway to kill.
        node: the node to kill.
        honest: its consumer disconnects for a while.
        disk: a small file system to fill; None: no disk becomes full.
        clock: the file with the offset of the gateway's clock; None: the clock stays correct.
    """

    def __init__(
        self,
        record: Record,
        draw: random.Random,
        gateway: Gateway,
        node: Node,
        honest: Honest,
        disk: Path | None,
        clock: Path | None,
    ) -> None:
        self._record = record
        self._draw = draw
        self._gateway = gateway
        self._node = node
        self._honest = honest
        self._disk = disk
        self._clock = clock
        self._kinds: dict[str, Callable[[float], Awaitable[None]]] = {
            KILL_GATEWAY: self._kill_gateway,
            KILL_NODE: self._kill_node,
            CONSUMER_AWAY: self._leave,
        }
        if disk is not None:
            self._kinds[FULL_DISK] = self._fill
        if clock is not None:
            self._kinds[CLOCK_JUMP] = self._jump

    async def run(self, seconds: float) -> None:
        """Cause faults for some seconds; at the end, all are repaired."""
        longest = min(6.0, seconds / 4)
        plan = sorted(
            (self._draw.uniform(0, seconds - longest), kind, self._draw.uniform(longest / 3, longest))
            for kind in self._kinds
            for _ in range(max(1, round(seconds / EVERY[kind])))
        )
        begin = time.monotonic()

        async def happen(when: float, kind: str, lasts: float) -> None:
            await asyncio.sleep(begin + when - time.monotonic())
            self._record.faults[kind] += 1
            await self._kinds[kind](lasts)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(seconds))
            for when, kind, lasts in plan:
                tasks.create_task(happen(when, kind, lasts))

    async def _kill_gateway(self, lasts: float) -> None:
        self._killed(KILL_GATEWAY, self._gateway.kill())

    async def _kill_node(self, lasts: float) -> None:
        self._killed(KILL_NODE, self._node.kill())

    def _killed(self, kind: str, did_run: bool) -> None:
        now = time.monotonic()
        if did_run:
            self._record.outages.append(Outage(kind, now, now))

    async def _fill(self, lasts: float) -> None:
        assert self._disk is not None
        hog = self._disk / f"hog-{self._draw.randrange(1 << 30)}"
        outage = Outage(FULL_DISK, time.monotonic(), float("inf"))
        self._record.outages.append(outage)
        try:
            until = time.monotonic() + lasts
            with hog.open("wb") as file:
                while time.monotonic() < until:  # space that is freed meanwhile is filled, too
                    fill(file.fileno())
                    await asyncio.sleep(0.02)
        finally:
            hog.unlink()
            outage.since = time.monotonic()
            self._record.full.append((outage.begin, outage.since))

    async def _jump(self, lasts: float) -> None:
        assert self._clock is not None
        set_clock(self._clock, self._draw.choice(JUMPS))
        await asyncio.sleep(lasts)
        set_clock(self._clock, "+0")

    async def _leave(self, lasts: float) -> None:
        outage = Outage(CONSUMER_AWAY, time.monotonic(), float("inf"))
        self._record.outages.append(outage)
        async with self._honest.away():
            await asyncio.sleep(lasts)
        outage.since = time.monotonic()


def fill(file: int) -> None:
    """Fill a file system."""
    size = 1 << 24
    while size >= 4096:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, size)
        except OSError:
            size //= 2


def set_clock(clock: Path, offset: str) -> None:
    """Set the gateway's clock atomically, for libfaketime."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(offset + "\n")
    with suppress(OSError):
        fresh.replace(clock)
