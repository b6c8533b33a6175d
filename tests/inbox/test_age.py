"""Age is counted by how long events were kept: a wrong clock neither deletes an inbox nor lets it grow for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from custommsg_server.storage.clock import HASTE, AgeClock
from support.inboxes import EVERYTHING, arrival, numbers, sequences

SECOND = 10**9
DAY = 86_400 * SECOND
LARGE = 20_000
"""Bytes of messages of which a hundred have the writer look at what is to be deleted."""


@dataclass
class Clocks:
    """The machine's clocks, in nanoseconds."""

    wall: int = 20_000 * DAY
    monotonic: int = 5 * DAY

    def pass_(self, time: int) -> None:
        """Let time pass on both."""
        self.wall += time
        self.monotonic += time


@asynccontextmanager
async def running(path: Path, clocks: Clocks) -> AsyncIterator[SqliteInbox]:
    """Run an inbox that keeps events for 30 days."""
    writer = WriterOptions(
        prune_interval=1e6, monotonic_ns=lambda: clocks.monotonic, wall_ns=lambda: clocks.wall
    )
    retention = Retention(30 * 86_400, 1 << 40)
    async with SqliteInbox(path, retention, SqliteOptions(writer=writer)) as inbox:
        yield inbox


async def store(inbox: SqliteInbox, clocks: Clocks, number: int) -> None:
    """Store a hundred messages; what is to be deleted by now is deleted afterwards."""
    await inbox.append([arrival(number, size=LARGE, time_ns=clocks.wall)] * 100)


async def kept(inbox: SqliteInbox) -> list[int]:
    """Return the numbers of the messages that are kept."""
    await inbox.append([])
    found: list[int] = []
    batch = await inbox.read(EVERYTHING, None, 1000)
    while batch.events:
        found += numbers(batch.events)
        batch = await inbox.read(EVERYTHING, batch.position, 1000)
    return sorted(set(found))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.mark.parametrize("jump", [31 * DAY, 3650 * DAY, -31 * DAY, -3650 * DAY])
async def test_a_clock_that_jumps_deletes_nothing_and_stops_nothing(path: Path, jump: int) -> None:
    """Ahead or back, and back again: each event is kept for 30 days from when it was stored, and no longer."""
    clocks = Clocks()
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 0)
        clocks.wall += jump
        for day in range(1, 30):
            clocks.pass_(DAY)
            if day == 15:
                clocks.wall -= jump
            await store(inbox, clocks, day)
        assert await kept(inbox) == list(range(30))
        for day in range(30, 40):
            clocks.pass_(DAY)
            await store(inbox, clocks, day)
            assert await kept(inbox) in (list(range(day - 30, day + 1)), list(range(day - 29, day + 1)))


async def test_a_start_with_a_clock_31_days_ahead_leaves_time_to_set_it(path: Path) -> None:
    """An hour of it costs the oldest day, not everything; with the clock set right, the rest stays."""
    clocks = Clocks()
    async with running(path, clocks) as inbox:
        for day in range(20):
            await store(inbox, clocks, day)
            clocks.pass_(DAY)
    clocks.wall += 31 * DAY
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 100)
        assert await kept(inbox) == [*range(20), 100]
        clocks.pass_(12 * 3600 * SECOND)
        await store(inbox, clocks, 101)
        assert await kept(inbox) == [*range(2, 20), 100, 101]
    clocks.wall -= 31 * DAY
    async with running(path, clocks) as inbox:
        clocks.pass_(DAY)
        await store(inbox, clocks, 102)
        assert set(range(3, 20)) < set(await kept(inbox))


async def test_a_gateway_that_was_away_catches_up(path: Path) -> None:
    """What has become too old meanwhile is deleted within some hours, not within another 30 days."""
    clocks = Clocks()
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 1)
    clocks.pass_(31 * DAY)
    clocks.monotonic = 0  # the machine has started again
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 2)
        assert await kept(inbox) == [1, 2]
        clocks.pass_(31 * DAY // HASTE + SECOND)
        await store(inbox, clocks, 3)
        assert await kept(inbox) == [2, 3]


async def test_restarts_do_not_keep_events_for_ever(path: Path) -> None:
    """Not even with a clock that is set back at each of them."""
    clocks = Clocks()
    for day in range(40):
        async with running(path, clocks) as inbox:
            await store(inbox, clocks, day)
            clocks.pass_(DAY)
            await store(inbox, clocks, 1000 + day)
        clocks.wall -= 2 * DAY
    async with running(path, clocks) as inbox:
        assert min(await kept(inbox)) >= 9


def test_events_behind_each_other_go_by_when_they_were_stored(path: Path) -> None:
    """Whatever their own times say, the oldest goes first, and what was stored since stays."""
    events = SqliteStore(path)
    for time_ns, now in ((10**18, 10), (5, 20), (7, 50), (10**18, 60)):
        events.append([arrival(time_ns=time_ns)])
        events.prune(Retention(25e-9, 1 << 40), now, 1000)
    assert sequences(events.read(EVERYTHING, 0, 9, 9, 1 << 20).events) == [3, 4]
    assert events.held().floor == 2
    events.close()


@given(
    st.integers(-(10**18), 10**18),
    st.integers(-(10**18), 10**18),
    st.lists(st.integers(0, 10**14), max_size=20),
)
def test_the_age_clock_goes_on_and_never_jumps(age: int, away: int, steps: list[int]) -> None:
    """At each look at least as much has passed as in truth, and at most HASTE times as much."""
    monotonic = 7
    clock = AgeClock(age, away, lambda: monotonic)
    before = clock.now()
    assert before == age
    for step in steps:
        monotonic += step
        now = clock.now()
        assert step <= now - before <= HASTE * step
        before = now
    assert before <= age + sum(steps) + max(0, away)
