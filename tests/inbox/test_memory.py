"""The memory of a subscriber that stops reading."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from custommsg_server.core.intake import Intake
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox
from support.inboxes import FOREVER, OURS, arrival, fast_directory, numbers, sequences

COUNT = 100_000
MEGABYTE = 1 << 20


def memory_now() -> int:
    """Return the memory of this process in bytes, and reset the peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_peak() -> int:
    """Return the maximum since then."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
async def test_subscribers_that_stop_reading_cost_a_bounded_amount_of_memory() -> None:
    """While 100,000 messages of 1 kB arrive, one subscriber gets them all; ten that stopped take little memory."""
    with fast_directory() as directory:
        async with SqliteInbox(directory / "inbox.db", FOREVER) as inbox:
            intake = Intake(inbox, TypeSet([range(65_536)]), lambda: OURS)
            slow = [await inbox.subscribe(Filter(), Start.LIVE) for _ in range(10)]
            quick = await inbox.subscribe(Filter(), Start.LIVE)

            async def read_all() -> None:
                async for batch in quick:
                    if batch.events and sequences(batch.events)[-1] == COUNT:
                        return

            reading = asyncio.create_task(read_all())
            idle = memory_now()
            intake.append([arrival(0, size=1000)])
            held = await asyncio.gather(*map(anext, slow))  # each has a batch in its hands, and stops
            for number in range(1, COUNT, 100):
                await intake.has_room()
                intake.append([arrival(n, size=1000) for n in range(number, min(number + 100, COUNT))])
            await reading
            assert memory_peak() - idle < 64 * MEGABYTE
            assert [sequences(batch.events) for batch in held] == [[1]] * 10
            expected = 1
            async for batch in slow[0]:
                assert numbers(batch.events) == list(range(expected, expected + len(batch.events)))
                expected += len(batch.events)
                if expected == COUNT:
                    break
