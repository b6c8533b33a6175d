"""The age of events is the time since they were stored: a wrong clock neither deletes them nor keeps them forever."""

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
from custommsg_server.storage.clock import CATCH_UP_SPEED, AgeClock
from support.inboxes import EVERYTHING, arrival, numbers, sequences

SECOND = 10**9
DAY = 86_400 * SECOND
LARGE = 20_000
"""The size of a message: a hundred of them make the writer check which events to delete."""


@dataclass
class Clocks:
    """The machine's clocks, in nanoseconds."""

    wall: int = 20_000 * DAY
    monotonic: int = 5 * DAY

    def pass_(self, time: int) -> None:
        """Advance both clocks."""
        self.wall += time
        self.monotonic += time


@asynccontextmanager
async def running(path: Path, clocks: Clocks) -> AsyncIterator[SqliteInbox]:
    """Run an inbox that stores events for 30 days."""
    writer = WriterOptions(
        prune_interval=1e6, monotonic_ns=lambda: clocks.monotonic, wall_ns=lambda: clocks.wall
    )
    retention = Retention(30 * 86_400, 1 << 40)
    async with SqliteInbox(path, retention, SqliteOptions(writer=writer)) as inbox:
        yield inbox


async def store(inbox: SqliteInbox, clocks: Clocks, number: int) -> None:
    """Store a hundred messages; then the events that are due are deleted."""
    await inbox.append([arrival(number, size=LARGE, time_ns=clocks.wall)] * 100)


async def kept(inbox: SqliteInbox) -> list[int]:
    """Return the numbers of the stored messages."""
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
    """Ahead, back, or both: each event is deleted 30 days after it was stored, not earlier and not later."""
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
    """Within an hour, the events of only one day are deleted; after the clock is corrected, no more."""
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
    """Events that became too old meanwhile are deleted within hours, not after another 30 days."""
    clocks = Clocks()
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 1)
    clocks.pass_(31 * DAY)
    clocks.monotonic = 0  # the machine has started again
    async with running(path, clocks) as inbox:
        await store(inbox, clocks, 2)
        assert await kept(inbox) == [1, 2]
        clocks.pass_(31 * DAY // CATCH_UP_SPEED + SECOND)
        await store(inbox, clocks, 3)
        assert await kept(inbox) == [2, 3]


async def test_restarts_do_not_keep_events_for_ever(path: Path) -> None:
    """Even if the clock is set back at each restart."""
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
    """Events are deleted in the order in which they were stored, whatever their own times are."""
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
    """Between two calls it advances by the real time at least, and by CATCH_UP_SPEED times as much at most."""
    monotonic = 7
    clock = AgeClock(age, away, lambda: monotonic)
    before = clock.now()
    assert before == age
    for step in steps:
        monotonic += step
        now = clock.now()
        assert step <= now - before <= CATCH_UP_SPEED * step
        before = now
    assert before <= age + sum(steps) + max(0, away)
