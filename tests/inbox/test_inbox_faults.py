"""The inbox whose store fails: it says so, counts what is lost, and goes on when it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Kind, Retention, Store, StoreError
from custommsg_server.inbox.position import Start
from custommsg_server.inbox.sqlite.inbox import Inbox, InboxOptions
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import FOREVER, Unruly, arrival, collect, numbers

EVERYTHING = Filter()
QUICK = InboxOptions(writer=WriterOptions(prune_interval=0.02, backoff_min=0.01, backoff_max=0.02))
PATIENT = InboxOptions(writer=WriterOptions(backoff_min=1e6, backoff_max=1e6))


class Watched:
    """An inbox and what it said about its health."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.errors: list[str | None] = []
        self._changed = asyncio.Event()
        inbox.watch(self._take)

    def _take(self, error: str | None) -> None:
        self.errors.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[str | None], bool]) -> None:
        """Wait for what it says."""
        while not condition(self.inbox.error):
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def running(
    open_store: Callable[[], Store], options: InboxOptions = QUICK
) -> AsyncIterator[tuple[Inbox, Watched]]:
    async with Inbox(open_store, FOREVER, options) as inbox:
        yield inbox, Watched(inbox)


def is_well(error: str | None) -> bool:
    return error is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def test_a_loss_is_told_in_its_place(path: Path) -> None:
    """What could not be stored is counted, and an interruption with the count stands before what follows."""
    store = Unruly(path)
    async with running(lambda: store) as (inbox, watched):
        subscription = inbox.subscribe(EVERYTHING)
        assert await inbox.append([arrival(1)])
        store.fails = "no room"
        lost = [arrival(2), arrival(3), arrival(kind=Kind.CONNECTED)]
        assert await inbox.append(lost) is False
        assert await inbox.append([arrival(4)]) is False
        assert inbox.error == "no room"
        assert inbox.lost == 3
        store.fails = None
        await watched.until(is_well)
        assert await inbox.append([arrival(5)])
        events = await collect(subscription, 3)
        assert [event.arrival.kind for event in events] == [Kind.MESSAGE, Kind.INTERRUPTION, Kind.MESSAGE]
        assert [event.arrival.lost for event in events] == [0, 3, 0]
        assert numbers([events[0], events[2]]) == [1, 5]
        assert watched.errors == [None, "no room", None]
        assert inbox.lost == 3


async def test_a_lost_peer_event_is_told_too(path: Path) -> None:
    """A subscriber may have missed that a peer has gone, even if no message is lost."""
    store = Unruly(path)
    async with running(lambda: store) as (inbox, watched):
        store.fails = "no room"
        assert await inbox.append([arrival(kind=Kind.DISCONNECTED)]) is False
        store.fails = None
        await watched.until(is_well)
        [event] = await collect(inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)
        assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 0)


async def test_a_failing_store_is_not_asked_for_each_message(path: Path) -> None:
    """Between two tries, what arrives is answered at once: lightningd does not wait for a broken disk."""
    store = Unruly(path)
    async with running(lambda: store, PATIENT) as (inbox, _):
        store.fails = "no room"
        await inbox.append([arrival()])
        store.is_appending.clear()
        answers = await asyncio.gather(*[inbox.append([arrival()]) for _ in range(100)])
        assert answers == [False] * 100
        assert not store.is_appending.is_set()
        assert inbox.lost == 101
        store.fails = None
    # The last try is at the end, so that the loss is told to whoever comes after the restart.
    again = SqliteStore(path)
    [event] = again.read(0, 10, 1000)
    assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 101)
    again.close()


async def test_forgetting_may_make_the_room_that_is_missing(path: Path) -> None:
    """What retention no longer allows is forgotten before anything new is given up."""
    store = Unruly(path)
    async with Inbox(lambda: store, Retention(1, 1 << 40), PATIENT) as inbox:
        assert await inbox.append([arrival(time_ns=1)] * 100)
        store.fails, store.is_helped_by_pruning = "no room", True
        assert await inbox.append([arrival(1, time_ns=2**62)])
        assert (inbox.error, inbox.lost) == (None, 0)
        assert inbox.earliest == 101
        assert numbers(await collect(inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)) == [1]


async def test_an_inbox_without_a_store_comes_up(path: Path) -> None:
    """It says what is wrong, loses what arrives, refuses to be read, and tries again by itself."""
    is_possible = False

    def open_store() -> Store:
        if not is_possible:
            raise StoreError("the disk is missing")
        return SqliteStore(path)

    async with running(open_store) as (inbox, watched):
        assert inbox.error == "the disk is missing"
        assert inbox.inbox_id == ""
        assert await inbox.append([arrival()]) is False
        for reading in (
            inbox.range,
            inbox.consumers,
            lambda: inbox.advance("a", 0),
            lambda: inbox.forget("a"),
        ):
            with pytest.raises(StoreError, match="the disk is missing"):
                await reading()
        with pytest.raises(StoreError, match="the disk is missing"):
            inbox.subscribe(EVERYTHING)
        is_possible = True
        await watched.until(is_well)
        [event] = await collect(inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)
        assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 1)
        assert inbox.inbox_id


async def test_a_damaged_file_stops_nothing_and_is_not_touched(path: Path) -> None:
    """The operator moves it away; the inbox finds that out by itself."""
    content, aside = b"something else" * 1000, path.with_suffix(".damaged")
    await asyncio.to_thread(path.write_bytes, content)
    async with running(lambda: SqliteStore(path)) as (inbox, watched):
        assert inbox.error is not None
        assert "move the file away" in inbox.error
        await asyncio.to_thread(path.rename, aside)
        await watched.until(is_well)
        assert await inbox.append([arrival(1)])
    assert await asyncio.to_thread(aside.read_bytes) == content


async def test_what_is_held_is_read_while_nothing_can_be_written(path: Path) -> None:
    """Subscriptions go on over a store that fails to write."""
    store = Unruly(path)
    async with running(lambda: store) as (inbox, _):
        await inbox.append([arrival(number) for number in range(1, 4)])
        store.fails = "no room"
        await inbox.append([arrival(4)])
        assert numbers(await collect(inbox.subscribe(EVERYTHING, Start.BEGINNING), 3)) == [1, 2, 3]
        assert (await inbox.range()).count == 3


async def test_a_bug_in_the_store_does_not_end_the_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is a failure like any other: the hook is answered, and it is tried again."""
    store = Unruly(path)
    async with running(lambda: store) as (inbox, watched):
        with monkeypatch.context() as patched, structlog.testing.capture_logs():
            patched.setattr(store.store, "append", lambda arrivals: 1 / 0)
            patched.setattr(store.store, "prune", lambda *arguments: 1 / 0)
            assert await inbox.append([arrival(1)]) is False
            assert inbox.error == "unexpected ZeroDivisionError; see the log"
            await watched.until(lambda error: error is not None)
        await watched.until(is_well)
        assert await inbox.append([arrival(2)])


async def test_trouble_with_forgetting_is_told_and_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the file that cannot be forgotten would let it grow: health says so, storing goes on."""
    store = Unruly(path)

    def fail(*arguments: object) -> int:
        raise StoreError("an old page is damaged")

    async with running(lambda: store) as (inbox, watched):
        with monkeypatch.context() as patched:
            patched.setattr(store.store, "prune", fail)
            await watched.until(lambda error: error == "an old page is damaged")
            assert await inbox.append([arrival(1)])
        await watched.until(is_well)
        assert inbox.lost == 0


async def test_logs_tell_of_changes_and_hold_no_payload(path: Path) -> None:
    """One line when it starts to fail and one when it works again, however much was lost between."""
    secret = b"xxa credential"
    store = Unruly(path)
    with structlog.testing.capture_logs() as logs:
        async with running(lambda: store) as (inbox, watched):
            store.fails = "no room"
            for _ in range(20):
                await inbox.append([Arrival(Kind.MESSAGE, 1, b"peer", secret)])
            store.fails = None
            await watched.until(is_well)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("inbox fails", "error"),
        ("inbox works again", "warning"),
    ]
    assert logs[1]["lost"] == 20
    assert "credential" not in str(logs)
