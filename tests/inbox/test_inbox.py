"""The inbox: what is appended is committed, then seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Retention, StoreError
from custommsg_server.inbox.position import PositionUnknown, Start
from custommsg_server.inbox.sqlite.inbox import Inbox, InboxOptions
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import FOREVER, Unruly, arrival, collect, numbers, sequences

EVERYTHING = Filter()


@asynccontextmanager
async def running(
    path: Path, retention: Retention = FOREVER, options: InboxOptions | None = None
) -> AsyncIterator[tuple[Inbox, Unruly]]:
    """Run an inbox on a store that does what the test says."""
    store = Unruly(path)
    async with Inbox(lambda: store, retention, options) as inbox:
        try:
            yield inbox, store
        finally:
            store.may_append.set()  # else it could not end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


def hold(store: Unruly) -> None:
    """Let the next commit wait, and forget that there was one before."""
    store.is_appending.clear()
    store.may_append.clear()


async def test_an_append_ends_when_it_is_committed(path: Path) -> None:
    """The answer is True, and another process would read the events by then."""
    async with running(path) as (inbox, store):
        assert inbox.error is None
        assert await inbox.append([arrival(1), arrival(2)]) is True
        assert sequences(store.read(0, 10, 1000)) == [1, 2]
        assert (await inbox.range()).latest == inbox.latest == 2
        assert inbox.inbox_id == store.inbox_id


async def test_nothing_to_append_is_no_work(path: Path) -> None:
    """An empty list is stored at once."""
    async with running(path) as (inbox, _):
        assert inbox.append([]).result() is True


async def test_an_event_is_seen_only_after_its_commit(path: Path) -> None:
    """While the commit is under way, a subscriber sees nothing, and afterwards everything."""
    async with running(path, options=InboxOptions(heartbeat=0.01)) as (inbox, store):
        subscription = inbox.subscribe(EVERYTHING)
        hold(store)
        is_stored = inbox.append([arrival(1)])
        await asyncio.to_thread(store.is_appending.wait)
        for _ in range(3):
            assert (await anext(subscription)).events == []
            assert not is_stored.done()
        store.may_append.set()
        assert numbers(await collect(subscription, 1)) == [1]
        assert await is_stored


async def test_all_that_waits_goes_into_one_commit(path: Path) -> None:
    """While one commit is under way, what comes is gathered for the next, in order."""
    async with running(path) as (inbox, store):
        store.appended.clear()
        subscription = inbox.subscribe(EVERYTHING)
        hold(store)
        first = inbox.append([arrival(0)])
        await asyncio.to_thread(store.is_appending.wait)
        rest = [inbox.append([arrival(2 * n + 1), arrival(2 * n + 2)]) for n in range(100)]
        store.may_append.set()
        assert all(await asyncio.gather(first, *rest))
        assert store.appended == [1, 200]
        assert numbers(await collect(subscription, 201)) == list(range(201))


async def test_the_inbox_is_full_until_the_writer_has_caught_up(path: Path) -> None:
    """Whoever brings more is told to wait, and woken when there is room."""
    async with running(path, options=InboxOptions(max_waiting=5000)) as (inbox, store):
        hold(store)
        assert not inbox.is_full
        await inbox.has_room()
        futures = [inbox.append([arrival(size=1000)]) for _ in range(4)]
        assert inbox.is_full
        room = asyncio.create_task(inbox.has_room())
        futures.append(inbox.append([arrival()]))  # taken all the same
        await asyncio.sleep(0)
        assert not room.done()
        store.may_append.set()
        await room
        assert not inbox.is_full
        assert all(await asyncio.gather(*futures))


async def test_whoever_stops_waiting_changes_nothing(path: Path) -> None:
    """What was appended is stored, even if nobody waits for it any more."""
    async with running(path) as (inbox, store):
        hold(store)
        abandoned = inbox.append([arrival(1)])
        abandoned.cancel()
        store.may_append.set()
        assert await inbox.append([arrival(2)])
        assert numbers(store.read(0, 10, 1000)) == [1, 2]


async def test_closing_stores_what_waits(path: Path) -> None:
    """What was taken before the end is there after the next start; what comes later is lost, and told so."""
    async with running(path) as (inbox, store):
        hold(store)
        futures = [inbox.append([arrival(number)]) for number in range(50)]
        subscription = inbox.subscribe(EVERYTHING)
        closing = asyncio.create_task(inbox.close())
        await asyncio.sleep(0)
        assert inbox.append([arrival(99)]).result() is False
        with pytest.raises(StoreError, match="closed"):
            inbox.subscribe(EVERYTHING)
        store.may_append.set()
        await closing
        assert [future.result() for future in futures] == [True] * 50
        assert [batch async for batch in subscription] == []
    again = SqliteStore(path)
    assert numbers(again.read(0, 100, 10_000)) == list(range(50))
    again.close()


async def test_a_subscriber_goes_on_after_a_restart(path: Path) -> None:
    """Its position means the same in the next process."""
    async with running(path) as (inbox, _):
        await inbox.append([arrival(number) for number in range(1, 6)])
        subscription = inbox.subscribe(EVERYTHING, Start.BEGINNING)
        assert len((await anext(subscription)).events) == 5
    async with running(path) as (inbox, _):
        await inbox.append([arrival(6)])
        subscription = inbox.subscribe(EVERYTHING, 4)
        assert numbers(await collect(subscription, 2)) == [5, 6]


async def test_consumers_are_kept(path: Path) -> None:
    """A position is kept, moves forward only, and is never beyond what there is."""
    async with running(path) as (inbox, _):
        await inbox.append([arrival()] * 5)
        assert await inbox.advance("a", 3) == 3
        assert await inbox.advance("a", 2) == 3
        for beyond in (6, 2**64 - 1, -1):
            with pytest.raises(PositionUnknown):
                await inbox.advance("a", beyond)
        assert [(consumer.name, consumer.position) for consumer in await inbox.consumers()] == [("a", 3)]
    async with running(path) as (inbox, _):
        assert [(consumer.name, consumer.position) for consumer in await inbox.consumers()] == [("a", 3)]
        assert await inbox.forget("a")
        assert not await inbox.forget("a")


async def test_what_is_too_old_is_forgotten_by_and_by(path: Path) -> None:
    """On a timer, with nothing arriving; subscriptions know it at once."""
    options = InboxOptions(writer=WriterOptions(prune_interval=0.01))
    async with running(path, Retention(0.05, 1 << 40), options) as (inbox, _):
        await inbox.append([arrival()] * 5000)
        while (await inbox.range()).count:
            pass
        await inbox.append([arrival(time_ns=2**62)])
        while inbox.earliest == 1:
            await asyncio.wait_for(inbox.append([arrival(time_ns=2**62)]), 20)
        assert inbox.earliest == 5001
        assert numbers(await collect(inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)) == [0]


async def test_the_size_is_kept_while_much_arrives(path: Path) -> None:
    """Forgetting keeps up with a writer that never rests."""
    retention = Retention(1e11, 1 << 20)
    async with running(path, retention) as (inbox, _):
        for _ in range(100):
            await inbox.has_room()
            last = inbox.append([arrival(size=1000)] * 200)
            await asyncio.sleep(0)
        assert await last
        assert (await inbox.range()).size < 12 << 20  # a commit may be 4 MB
        await inbox.append([arrival(size=1000)] * 2000)
        while (await inbox.range()).size > retention.max_size:
            pass
        assert (await inbox.range()).latest == 22_000
