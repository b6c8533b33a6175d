"""The SQLite engine while its store fails: arrivals wait and are stored later, up to a limit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Kind
from custommsg_server.inbox.port import Event, InboxError, Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import EVERYTHING, FOREVER, arrival, collect, fast_directory, numbers, read
from support.watched import is_well, running

KEEPING = SqliteOptions(writer=WriterOptions(prune_interval=0.02, backoff_min=0.01, backoff_max=0.02))
SIZE = 1400
"""The counted size of an arrival of 1,000 bytes."""


def keeping(count: int) -> SqliteOptions:
    """Let so many arrivals of 1,000 bytes wait while the store fails."""
    return SqliteOptions(
        writer=WriterOptions(backoff_min=0.01, backoff_max=0.02, max_waiting=count * SIZE + SIZE // 2)
    )


def told(events: list[Event]) -> list[int | str]:
    """Return the numbers of the messages, and the counts of lost ones."""
    return [
        f"{event.arrival.lost} lost" if event.arrival.kind is Kind.INTERRUPTION else numbers([event])[0]
        for event in events
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def test_what_waits_is_kept_while_the_store_fails(path: Path) -> None:
    """All arrivals are stored in order when the store works again, without an interruption."""
    async with running(path, KEEPING) as (inbox, watched):
        live = await inbox.subscribe(EVERYTHING, Start.LIVE)
        watched.store.fails = "no room"
        appends = [inbox.append([arrival(number)]) for number in range(1, 51)]
        await watched.until(lambda error: error == "no room")
        appends += [inbox.append([arrival(number)]) for number in range(51, 151)]
        assert not any(one.done() for one in appends)
        watched.store.fails = None
        positions = await asyncio.gather(*appends)
        events = await collect(live, 150)
        assert told(events) == list(range(1, 151))
        assert [[event.position] for event in events] == positions


async def test_only_what_is_beyond_the_bound_is_lost_and_the_number_is_told(path: Path) -> None:
    """The newest are lost, with one interruption after the others; their appends fail at once."""
    async with running(path, keeping(3)) as (inbox, watched):
        live = await inbox.subscribe(EVERYTHING, Start.LIVE)
        watched.store.fails = "no room"
        kept = [inbox.append([arrival(number, size=1000)]) for number in (1, 2, 3)]
        await watched.until(lambda error: error == "no room")
        for number in range(4, 11):
            with pytest.raises(InboxError, match="no room"):
                await inbox.append([arrival(number, size=1000)])
        with pytest.raises(InboxError, match="no room"):
            await inbox.append([arrival(11)])  # though it would fit: what follows a loss stands behind it
        assert not any(one.done() for one in kept)
        watched.store.fails = None
        await asyncio.gather(*kept)
        await inbox.append([arrival(12)])
        assert told(await collect(live, 5)) == [1, 2, 3, "8 lost", 12]


async def test_each_loss_has_a_place_of_its_own(path: Path) -> None:
    """Two failures, with stored events between them, are two interruptions."""
    async with running(path, keeping(1)) as (inbox, watched):
        for number in (1, 5):
            watched.store.fails = "no room"
            kept = inbox.append([arrival(number, size=1000)])
            await watched.until(lambda error: error == "no room")
            for lost in range(number + 1, number + 4):
                with pytest.raises(InboxError):
                    await inbox.append([arrival(lost, size=1000)])
            watched.store.fails = None
            await kept
            await watched.until(is_well)
        await inbox.append([arrival(9)])
        events = await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 5)
        assert told(events) == [1, "3 lost", 5, "3 lost", 9]


async def test_what_waits_at_the_end_is_tried_once_more(path: Path) -> None:
    """A stop does not wait for the next try; arrivals that cannot be stored are lost, and their appends fail."""
    patient = SqliteOptions(writer=WriterOptions(backoff_min=1e6, backoff_max=1e6))
    for fails in (None, "still no room"):
        async with running(path, patient) as (inbox, watched):
            watched.store.fails = "no room"
            appends = [inbox.append([arrival(number)]) for number in (1, 2)]
            await watched.until(lambda error: error == "no room")
            appends.append(inbox.append([arrival(3)]))
            watched.store.fails = fails
        results = await asyncio.gather(*appends, return_exceptions=True)
        assert [isinstance(one, InboxError) for one in results] == [fails is not None] * 3
    store = SqliteStore(path)
    assert numbers(read(store)) == [1, 2, 3]
    store.close()


async def test_the_inbox_of_a_node_that_starts_late_loses_nothing(tmp_path: Path) -> None:
    """Arrivals between the creation of lightningd's folder and the next try to open the inbox wait."""
    node = tmp_path / "bitcoin"
    options = SqliteOptions(writer=WriterOptions(backoff_min=0.2, backoff_max=0.2), make_parents=False)
    async with running(node / "custommsg" / "inbox.sqlite3", options) as (inbox, _):
        early = inbox.append([arrival(1)])
        node.mkdir()
        late = [inbox.append([arrival(number)]) for number in (2, 3)]
        assert "does not exist yet" in (inbox.error or "")
        await asyncio.gather(early, *late)
        assert inbox.error is None
        assert told(await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 3)) == [1, 2, 3]


async def test_a_commit_takes_no_more_than_may_wait(path: Path) -> None:
    """Else a part of it would be given up when it has failed, and stored twice if it took effect after all."""
    async with running(path, keeping(3)) as (inbox, watched):
        watched.store.may_append.clear()
        watched.store.is_appending.clear()
        appends = [inbox.append([arrival(0)])]
        await asyncio.to_thread(watched.store.is_appending.wait)
        appends += [inbox.append([arrival(number, size=1000)]) for number in range(1, 9)]
        watched.store.may_append.set()
        await asyncio.gather(*appends)
        assert watched.store.appended[-4:] == [1, 3, 3, 2]


@pytest.mark.parametrize("bob", [0, 4000])
def test_nothing_is_deleted_of_a_commit_that_is_in_doubt(path: Path, bob: int) -> None:
    """Else a commit that took effect, though it failed, would be taken for another one, and stored once more."""

    class DoubtfulStore(SqliteStore):
        fails = False

        def _commit(self, connection: apsw.Connection) -> None:
            super()._commit(connection)
            if self.fails:
                raise apsw.IOError("disk I/O error")

    store = DoubtfulStore(path)
    if bob:
        store.append([arrival(1, size=bob, peer_id=b"\x03" + b"b" * 32)])
    batch = [arrival(number, size=5000) for number in (2, 3)]
    store.fails = True
    with pytest.raises(InboxError):
        store.append(batch)
    store.fails = False
    small = Retention(max_age=1e11, max_size=16_000)
    store.prune(small, 0, 1)
    store.evict(small, 1)
    stored = store.append(batch)
    events = store.read(EVERYTHING, 0, 1 << 60, 100, 1 << 60).events
    store.close()
    assert [one for one in told(list(events)) if one in (2, 3)] == [2, 3]
    assert [event.position for event in events[-2:]] == [event.position for event in stored.events]


@given(st.lists(st.sampled_from(["works", "fails", "reports an error"]), max_size=8))
def test_each_message_is_stored_once_or_counted_as_lost(outcomes: list[str]) -> None:
    """With any failures of commits: in order, none twice, and the interruptions count the missing ones."""

    async def run(path: Path) -> None:
        left = list(outcomes)

        class FlakyStore(SqliteStore):
            def _commit(self, connection: apsw.Connection) -> None:
                outcome = left.pop(0) if left else "works"
                if outcome == "fails":
                    raise apsw.FullError("no room")
                super()._commit(connection)
                if outcome == "reports an error":
                    raise apsw.IOError("disk I/O error")

        options = SqliteOptions(
            writer=WriterOptions(backoff_min=0, backoff_max=0, max_waiting=4 * SIZE, prune_interval=1e6)
        )
        async with SqliteInbox(path, FOREVER, options, FlakyStore) as inbox:
            appends = []
            for number in range(1, 21):
                appends.append(inbox.append([arrival(number, size=1000)]))
                await asyncio.sleep(0)
            results = await asyncio.gather(*appends, return_exceptions=True)
            await inbox.append([arrival(100)])
            events = list((await inbox.read(EVERYTHING, None, 1000)).events)
        stored = [number for number, one in enumerate(results, 1) if not isinstance(one, InboxError)]
        assert numbers([event for event in events if event.arrival.message]) == [*stored, 100]
        assert sum(event.arrival.lost for event in events) == 20 - len(stored)

    with fast_directory() as directory:
        asyncio.run(run(directory / "inbox.db"))
