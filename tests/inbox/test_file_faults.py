"""Faults of the inbox's file before and during the run: inbox and `doctor` report them, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.inspect import look_at
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import EVERYTHING, FOREVER, arrival, numbers, read
from support.watched import Watched, is_well

KEEPING = SqliteOptions(writer=WriterOptions(prune_interval=0.02, backoff_min=0.01, backoff_max=0.02))

Fault = Callable[[Path], None]


def remove(path: Path) -> None:
    path.rename(path.with_suffix(".away"))


def replace(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.write_bytes(b"another file")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 512):
        content[at] ^= 0xFF
    path.write_bytes(content)


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Restore all files, as an operator does who has moved them by mistake."""
    files = {file: file.read_bytes() for file in path.parent.iterdir()}
    yield
    away = path.with_suffix(".away")
    if away.exists():
        away.replace(path)
    for file, content in files.items():
        with file.open("r+b") as target:
            target.write(content)
            target.truncate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


def fill(path: Path) -> None:
    store = SqliteStore(path)
    store.append([arrival(number, size=1000) for number in range(300)])
    store.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (replace, "move the file away"),
        (halve, "move the file away"),
        (flip, "move the file away"),
    ],
)
async def test_a_file_that_was_damaged_before_the_start_is_said(path: Path, fault: Fault, said: str) -> None:
    """`doctor` reports it; the inbox reports it, too, or returns only correct events; the file is not replaced."""
    fill(path)
    fault(path)
    with pytest.raises(InboxError, match=said):
        look_at(path)
    size = path.stat().st_size
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        try:
            got: list[int] = []
            batch = await inbox.read(EVERYTHING, None, 1000)
            got += numbers(batch.events)
            assert got == list(range(len(got)))
        except InboxError as error:
            assert said in str(error)
    assert path.stat().st_size >= size


async def test_a_file_that_was_emptied_is_not_taken_for_a_new_one_while_its_log_is_there(path: Path) -> None:
    """SQLite would delete the log, which may contain the newest events."""
    fill(path)
    store = SqliteStore(path)
    store.append([arrival(300)])
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    empty(path)
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(InboxError, match="its write-ahead log is not"):
        look_at(path)
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        assert "move the file away" in (inbox.error or "")
    assert Path(f"{path}-wal").read_bytes() == log


async def test_a_file_that_was_emptied_before_the_start_is_a_new_inbox(path: Path) -> None:
    """It has another id, so old positions are refused: they belong to another inbox."""
    fill(path)
    store = SqliteStore(path)
    before = store.positions.prefix
    store.close()
    empty(path)
    assert look_at(path).exists
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        assert inbox.error is None
        assert not (await inbox.bounds()).latest.startswith(before)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (remove, "removed while in use; start the gateway again"),
        (replace, "removed while in use; start the gateway again"),
        (empty, "truncated while in use; stop the gateway, move the file away"),
        (halve, "truncated while in use; stop the gateway, move the file away"),
    ],
)
async def test_a_file_that_is_gone_during_the_run_is_said_and_put_back_loses_nothing(
    path: Path, fault: Fault, said: str
) -> None:
    """Arrivals wait meanwhile; nothing is written to a file in its place."""
    fill(path)
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        watched = Watched(inbox)
        await inbox.append([arrival(300)])
        with restored(path):
            fault(path)
            there = path.read_bytes() if path.exists() else b""
            waiting = [inbox.append([arrival(number)]) for number in (301, 302)]
            await watched.until(lambda error: error is not None and said in error)
            with pytest.raises(InboxError):
                look_at(path)
            assert not any(one.done() for one in waiting)
            assert (path.read_bytes() if path.exists() else b"") == there
        await asyncio.gather(*waiting)
        await watched.until(is_well)  # an error of deleting ends with the next try
    store = SqliteStore(path)
    assert numbers(read(store)) == list(range(303))
    store.close()


async def test_damage_during_the_run_is_said_by_whoever_meets_it(path: Path) -> None:
    """A subscriber that reads it gets only an error, and `doctor` reports it; arrivals are stored or wait."""
    fill(path)
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        flip(path)
        with pytest.raises(InboxError, match="move the file away"):
            look_at(path)
        with pytest.raises(InboxError, match="move the file away"):
            await inbox.read(EVERYTHING, None, 1000)


async def test_a_disk_that_is_full_during_the_run_loses_nothing(path: Path) -> None:
    """Arrivals wait, and are stored when there is space again."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
        watched = Watched(inbox)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            waiting = [
                inbox.append([arrival(number, size=10_000) for number in range(first, first + 10)])
                for first in range(0, 500, 10)
            ]
            await watched.until(lambda error: error is not None)
            assert "disk" in (inbox.error or "")
            assert not all(one.done() for one in waiting)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        await asyncio.gather(*waiting)
        await watched.until(is_well)
        assert (await inbox.bounds()).count == 500
    store = SqliteStore(path)
    assert numbers(read(store)) == list(range(500))
    store.close()


async def test_a_stop_while_it_fails_says_what_is_lost(path: Path) -> None:
    """The log has the number of lost messages, and the appends fail."""
    fill(path)
    with structlog.testing.capture_logs() as logs:
        async with SqliteInbox(path, FOREVER, KEEPING) as inbox:
            remove(path)
            waiting = inbox.append([arrival(1), arrival(2)])
        with pytest.raises(InboxError, match="removed while in use"):
            await waiting
    assert [line["lost"] for line in logs if line["event"].startswith("inbox closed while it fails")] == [2]
