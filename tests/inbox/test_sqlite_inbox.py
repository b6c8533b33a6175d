"""The SQLite engine in addition to the port: commits and retention."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from custommsg_server.inbox.port import InboxError, Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import EVERYTHING, FOREVER, FaultyStore, arrival, collect, numbers, read, sequences


@asynccontextmanager
async def running(
    path: Path, retention: Retention = FOREVER, options: SqliteOptions | None = None
) -> AsyncIterator[tuple[SqliteInbox, FaultyStore]]:
    """Run an inbox on a store that the test controls."""
    async with SqliteInbox(path, retention, options, FaultyStore) as inbox:
        assert isinstance(inbox._store, FaultyStore)
        store = inbox._store
        try:
            yield inbox, store
        finally:
            store.may_append.set()  # else it could not end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


def hold(store: FaultyStore) -> None:
    """Make the next commit wait."""
    store.is_appending.clear()
    store.may_append.clear()


async def test_an_append_ends_when_it_is_committed(path: Path) -> None:
    """Another process would read the events by then."""
    async with running(path) as (inbox, store):
        assert inbox.error is None
        positions = await inbox.append([arrival(1), arrival(2)])
        assert [event.position for event in read(store)] == positions
        assert (await inbox.bounds()).latest == positions[1]


async def test_the_folder_is_made(tmp_path: Path) -> None:
    """For its owner only, with all missing parents."""
    async with running(tmp_path / "a" / "b" / "inbox.db"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


async def test_an_event_is_seen_only_after_its_commit(path: Path) -> None:
    """During the commit a subscriber gets nothing, and afterwards everything."""
    async with running(path, options=SqliteOptions(heartbeat=0.01)) as (inbox, store):
        subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)
        hold(store)
        positions = inbox.append([arrival(1)])
        await asyncio.to_thread(store.is_appending.wait)
        for _ in range(3):
            assert (await anext(subscription)).events == []
            assert not positions.done()
        store.may_append.set()
        assert numbers(await collect(subscription, 1)) == [1]
        assert await positions


async def test_all_that_waits_goes_into_one_commit(path: Path) -> None:
    """During a commit, arrivals wait and go into the next one, in order."""
    async with running(path) as (inbox, store):
        store.appended.clear()
        subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)
        hold(store)
        first = inbox.append([arrival(0)])
        await asyncio.to_thread(store.is_appending.wait)
        rest = [inbox.append([arrival(2 * n + 1), arrival(2 * n + 2)]) for n in range(100)]
        store.may_append.set()
        positions = await asyncio.gather(first, *rest)
        assert [len(some) for some in positions] == [1] + [2] * 100
        assert store.appended == [1, 200]
        events = await collect(subscription, 201)
        assert numbers(events) == list(range(201))
        assert [event.position for event in events] == [one for some in positions for one in some]


async def test_closing_stores_what_waits(path: Path) -> None:
    """Arrivals from before the end are there after the next start."""
    async with running(path) as (inbox, store):
        hold(store)
        futures = [inbox.append([arrival(number)]) for number in range(50)]
        subscription = await inbox.subscribe(EVERYTHING, Start.LIVE)
        closing = asyncio.create_task(inbox.close())
        await asyncio.sleep(0)
        store.may_append.set()
        await closing
        assert all(future.done() and len(future.result()) == 1 for future in futures)
        assert [batch async for batch in subscription] == []
    again = SqliteStore(path)
    assert numbers(read(again)) == list(range(50))
    again.close()


async def test_what_is_too_old_is_deleted_by_and_by(path: Path) -> None:
    """By a timer, even if nothing arrives; subscriptions notice it at once."""
    now = 0
    options = SqliteOptions(writer=WriterOptions(prune_interval=0.01, monotonic_ns=lambda: now))
    async with running(path, Retention(0.05, 1 << 40), options) as (inbox, _):
        old = await inbox.append([arrival()] * 5000)
        while (await inbox.bounds()).count:
            now += 1_000_000
        await inbox.append([arrival()])
        while (await inbox.subscribe(EVERYTHING, Start.BEGINNING)).position != old[-1]:
            await asyncio.wait_for(inbox.append([arrival()]), 20)
        subscription = await inbox.subscribe(EVERYTHING, Start.BEGINNING)
        assert numbers(await collect(subscription, 1)) == [0]
        assert sequences((await inbox.read(EVERYTHING, None, 1)).events) == [5001]


async def test_the_size_is_kept_while_much_arrives(path: Path) -> None:
    """Deleting keeps up with continuous arrivals."""
    retention = Retention(1e11, 1 << 20)
    async with running(path, retention) as (inbox, _):
        for _ in range(100):
            last = inbox.append([arrival(size=1000)] * 200)
            for _ in range(3):
                await asyncio.sleep(0)
        assert await last
        assert (await inbox.bounds()).size < 12 << 20  # a commit may be 4 MB
        latest = (await inbox.append([arrival(size=1000)] * 2000))[-1]
        while (await inbox.bounds()).size > retention.max_size:
            pass
        assert (await inbox.bounds()).latest == latest
        assert latest.endswith("-22000")


async def test_a_page_is_bounded_in_bytes(path: Path) -> None:
    """However many events are asked for, since a page is one gRPC message."""
    async with running(path) as (inbox, _):
        await inbox.append([arrival(number, size=60_000) for number in range(100)])
        batch = await inbox.read(EVERYTHING, None, 1000)
        assert 3 < len(batch.events) < 6
        assert not batch.is_last
        following = await inbox.read(EVERYTHING, batch.position, 1000)
        assert numbers(following.events)[0] == len(batch.events)
        assert numbers((await inbox.read(EVERYTHING, None, 1)).events) == [0]


async def test_a_consumer_that_is_opened_while_the_inbox_closes_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets an InboxError, not an error about threads."""
    reading, gate, consumers = threading.Event(), threading.Event(), SqliteStore.consumers

    def wait(store: SqliteStore) -> list[tuple[str, int, int]]:
        reading.set()
        assert gate.wait(20)
        return consumers(store)

    async with SqliteInbox(path, FOREVER) as inbox:
        monkeypatch.setattr(SqliteStore, "consumers", wait)
        opening = asyncio.ensure_future(inbox.consumers.open("a", Start.LIVE))
        await asyncio.to_thread(reading.wait)
        closing = asyncio.ensure_future(inbox.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
        with pytest.raises(InboxError, match="closed"):
            await opening
