"""The SQLite engine with a file that fails: it reports the error, counts lost messages, and recovers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
import structlog

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.port import InboxError, Position, Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore, Stored
from custommsg_server.inbox.sqlite.writer import Writer, WriterOptions
from support.inboxes import EVERYTHING, arrival, collect, numbers, read
from support.watched import QUICK, is_well, running

PATIENT = SqliteOptions(writer=WriterOptions(backoff_min=1e6, backoff_max=1e6, max_waiting=0))


async def is_lost(inbox: SqliteInbox, *arrivals: Arrival) -> bool:
    """Append an arrival; return whether it was lost."""
    try:
        await inbox.append(arrivals)
    except InboxError:
        return True
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def test_a_lost_peer_event_is_told_too(path: Path) -> None:
    """A subscriber may have missed a disconnect, even if no message is lost."""
    async with running(path) as (inbox, watched):
        watched.store.fails = "no room"
        assert await is_lost(inbox, arrival(kind=Kind.DISCONNECTED))
        watched.store.fails = None
        await watched.until(is_well)
        [event] = await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)
        assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 0)


async def test_a_failing_store_is_not_asked_for_each_message(path: Path) -> None:
    """Between two tries, arrivals fail at once: lightningd must not wait for a broken disk."""
    async with running(path, PATIENT) as (inbox, watched):
        store = watched.store
        store.fails = "no room"
        assert await is_lost(inbox, arrival())
        store.is_appending.clear()
        assert all(await asyncio.gather(*[is_lost(inbox, arrival()) for _ in range(100)]))
        assert not store.is_appending.is_set()
        store.fails = None
    # The last try is at the end, so that the loss is told to whoever comes after the restart.
    again = SqliteStore(path)
    [event] = read(again)
    assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 101)
    again.close()


async def test_what_is_stored_already_is_not_lost_by_a_second_time(path: Path) -> None:
    """While storing fails, an arrival with a known id gets its position, and is not counted as lost."""
    async with running(path) as (inbox, watched):
        known = await inbox.append([arrival(1, name="a")])
        watched.store.fails = "no room"
        assert await is_lost(inbox, arrival(2, name="b"), arrival(1, name="a"))
        assert await inbox.append([arrival(1, name="a")]) == known
        watched.store.fails = None
        await watched.until(is_well)
        _, interruption = await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 2)
        assert interruption.arrival.lost == 1


async def test_what_comes_while_the_store_begins_to_work_stands_behind_the_loss(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored after the interruption, and gets its own position."""
    async with running(path) as (inbox, watched):
        entered, gate, append = threading.Event(), threading.Event(), watched.store.append

        def wait(arrivals: Sequence[Arrival]) -> Stored:
            entered.set()
            assert gate.wait(20)
            return append(arrivals)

        watched.store.fails = "no room"
        assert await is_lost(inbox, arrival(1))
        monkeypatch.setattr(watched.store, "append", wait)
        await asyncio.to_thread(entered.wait)
        watched.store.fails = None
        stored = inbox.append([arrival(2), arrival(3)])
        gate.set()
        positions = await stored
        interruption, *events = (await inbox.read(EVERYTHING, None, 10)).events
        assert interruption.arrival.lost == 1
        assert [event.position for event in events] == positions
        assert numbers(events) == [2, 3]


async def test_deleting_may_make_the_room_that_is_missing(path: Path) -> None:
    """Events that are too old are deleted before new ones are dropped."""
    now = 0
    options = SqliteOptions(writer=replace(PATIENT.writer, monotonic_ns=lambda: now))
    async with running(path, options, retention=Retention(1, 1 << 40)) as (inbox, watched):
        now = 10_000_000
        await inbox.append([arrival(size=12_000)] * 100)  # so much that its age is noted at once
        now = 2_000_000_000
        watched.store.fails, watched.store.is_helped_by_pruning = "no room", True
        [position] = await inbox.append([arrival(1)])
        assert inbox.error is None
        assert (await inbox.bounds()).count == 1
        [event] = (await inbox.read(EVERYTHING, None, 10)).events
        assert event.position == position


async def test_a_commit_that_took_effect_though_it_reported_an_error_is_not_made_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry finds the events that are in the file already, and stores the rest."""
    async with running(path) as (inbox, watched):
        live = await inbox.subscribe(EVERYTHING, Start.LIVE)
        first = await inbox.append([arrival(1, name="a")])
        commits: list[bool] = []

        def commit(connection: apsw.Connection) -> None:
            connection.execute("COMMIT")
            commits.append(True)
            if len(commits) == 1:
                raise apsw.IOError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(watched.store, "_commit", commit)
            positions = await inbox.append([arrival(2), arrival(2), arrival(3, name="b")])
        assert len(commits) >= 2
        assert inbox.error is None
        last = await inbox.append([arrival(3, name="b"), arrival(4)])
        assert last[0] == positions[2]
        for events in (read(watched.store), await collect(live, 5)):
            assert numbers(events) == [1, 2, 2, 3, 4]
            assert [event.position for event in events] == [*first, *positions, last[1]]


async def test_an_inbox_without_its_file_comes_up(path: Path) -> None:
    """It reports the error, loses arrivals, refuses reads, and tries again."""
    is_possible = False

    def open_store(path: Path) -> SqliteStore:
        if not is_possible:
            raise InboxError("the disk is missing")
        return SqliteStore(path)

    async with running(path, open_store=open_store) as (inbox, watched):
        assert inbox.error == "the disk is missing"
        with pytest.raises(InboxError, match="the disk is missing"):
            await inbox.append([arrival()])
        for refused in (
            inbox.bounds(),
            inbox.read(EVERYTHING, None, 1),
            inbox.subscribe(EVERYTHING, Start.LIVE),
            inbox.consumers.list(),
            inbox.consumers.open("a", Start.LIVE),
            inbox.consumers.ack("a", Position("0123456789abcdef-0")),
            inbox.consumers.delete("a"),
        ):
            with pytest.raises(InboxError, match="the disk is missing"):
                await refused
        is_possible = True
        await watched.until(is_well)
        [event] = await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 1)
        assert (event.arrival.kind, event.arrival.lost) == (Kind.INTERRUPTION, 1)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the setting to change."""
    (tmp_path / "file").touch()
    async with running(tmp_path / "file" / "inbox.db") as (inbox, _):
        assert inbox.error is not None
        assert f"cannot create {tmp_path / 'file'}" in inbox.error
        assert "set another data_dir" in inbox.error


async def test_a_damaged_file_stops_nothing_and_is_not_touched(path: Path) -> None:
    """When the operator has moved it away, the inbox works again without a restart."""
    content, moved = b"something else" * 1000, path.with_suffix(".damaged")
    await asyncio.to_thread(path.write_bytes, content)
    async with running(path) as (inbox, watched):
        assert inbox.error is not None
        assert "move the file away" in inbox.error
        await asyncio.to_thread(path.rename, moved)
        await watched.until(is_well)
        assert not await is_lost(inbox, arrival(1))
    assert await asyncio.to_thread(moved.read_bytes) == content


async def test_what_is_held_is_read_while_nothing_can_be_written(path: Path) -> None:
    """Subscriptions continue on a file that cannot be written."""
    async with running(path) as (inbox, watched):
        await inbox.append([arrival(number) for number in range(1, 4)])
        watched.store.fails = "no room"
        assert await is_lost(inbox, arrival(4))
        events = await collect(await inbox.subscribe(EVERYTHING, Start.BEGINNING), 3)
        assert numbers(events) == [1, 2, 3]
        assert (await inbox.bounds()).count == 3


async def test_a_bug_in_the_store_does_not_end_the_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is handled like an error: the hook is answered, and storing is tried again."""
    async with running(path) as (inbox, watched):
        with monkeypatch.context() as patched, structlog.testing.capture_logs():
            patched.setattr(watched.store, "append", lambda arrivals: 1 / 0)
            patched.setattr(watched.store, "prune", lambda *arguments: 1 / 0)
            assert await is_lost(inbox, arrival(1))
            assert inbox.error == "unexpected ZeroDivisionError, which is a bug; see the log, and report it"
            await watched.until(lambda error: error is not None)
        await watched.until(is_well)
        assert not await is_lost(inbox, arrival(2))


async def test_trouble_with_deleting_is_told_and_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If events cannot be deleted, the file grows: the inbox reports it, and storing continues."""

    def fail(*arguments: object) -> int:
        raise InboxError("an old page is damaged")

    async with running(path) as (inbox, watched):
        with monkeypatch.context() as patched:
            patched.setattr(watched.store, "prune", fail)
            await watched.until(lambda error: error == "an old page is damaged")
            assert not await is_lost(inbox, arrival(1))
        await watched.until(is_well)
        assert (await inbox.bounds()).count == 1


async def test_logs_tell_of_changes_and_hold_no_payload(path: Path) -> None:
    """One line when it starts to fail and one when it works again, however many messages are lost."""
    secret = b"xxa credential"
    with structlog.testing.capture_logs() as logs:
        async with running(path) as (inbox, watched):
            watched.store.fails = "no room"
            for _ in range(20):
                assert await is_lost(inbox, Arrival(Kind.MESSAGE, 1, b"peer", secret))
            watched.store.fails = None
            await watched.until(is_well)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("inbox fails", "error"),
        ("inbox works again", "warning"),
    ]
    assert logs[1]["lost"] == 20
    assert "credential" not in str(logs)


async def test_the_end_of_the_writer_is_told_and_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All appends fail, and `run` raises, so that the process can end."""
    async with running(tmp_path / "inbox.sqlite3") as (inbox, watched):
        part = asyncio.ensure_future(inbox.run())
        monkeypatch.setattr(Writer, "_write", lambda *_: 1 / 0)
        assert await is_lost(inbox, arrival(1))
        assert await is_lost(inbox, arrival(2))
        assert "ended because of a bug" in (watched.errors[-1] or "")
        with pytest.raises(RuntimeError, match="has ended") as raised:
            await part
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_the_folder_of_a_node_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """`error` names the folder; when lightningd has created it, the inbox is created in it."""
    node = tmp_path / "bitcoin"
    options = SqliteOptions(writer=QUICK.writer, make_parents=False)
    async with running(node / "custommsg" / "inbox.sqlite3", options) as (inbox, watched):
        assert f"{node} does not exist yet" in (inbox.error or "")
        assert not node.exists()
        node.mkdir()
        await watched.until(is_well)
        assert not await is_lost(inbox, arrival(1))
