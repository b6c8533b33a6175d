"""Faults of a file and its disk: always an InboxError that says what to do, and no loss."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import ALICE, EVERYTHING, FOREVER, MOST, arrival, fast_directory, numbers, read

NOBODY = 65534


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Act as an ordinary user, since permissions do not apply to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory that an ordinary user owns and can reach."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)
        Path(name).chmod(0o700)


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "inbox.db"


def fill(path: Path, count: int = 3) -> None:
    store = SqliteStore(path)
    store.append([arrival(number, size=1000) for number in range(count)])
    store.close()


def append_until_it_fails(store: SqliteStore, first: int = 0) -> tuple[str, int]:
    """Store numbered messages; return the error that ended it, and how many were stored."""
    stored = 0
    try:
        while True:
            store.append([arrival(first + stored + number, size=1000) for number in range(10)])
            stored += 10
    except InboxError as error:
        return str(error), stored


def test_a_missing_directory_is_named(path: Path) -> None:
    """The message has the path, and says what to do."""
    with pytest.raises(InboxError, match=r"^inbox /.*/no/inbox\.db: its directory does not exist; create it"):
        SqliteStore(path.parent / "no" / "inbox.db")


@pytest.mark.parametrize(
    "content", [b"this is a text", b"x" * 10_000, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_what_is_no_inbox_is_left_alone(path: Path, content: bytes) -> None:
    """A file of another kind is refused and not changed; the error says what to do."""
    path.write_bytes(content)
    with pytest.raises(InboxError, match="move the file away"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_directory_is_no_inbox(path: Path) -> None:
    """A path that names a directory is refused."""
    path.mkdir()
    with pytest.raises(InboxError, match=r"inbox\.db: .*directory"):
        SqliteStore(path)


def test_another_program_s_database_is_refused(path: Path) -> None:
    """A database with other tables is an InboxError."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE events (x); PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(InboxError, match="no such table: meta"):
        SqliteStore(path)


def test_a_second_gateway_is_kept_away(path: Path) -> None:
    """Each of two gateways would miss the events of the other; the second can start when the first has ended."""
    first = SqliteStore(path)
    with pytest.raises(InboxError, match="another gateway uses it"):
        SqliteStore(path)
    first.close()
    SqliteStore(path).close()


def test_a_removed_file_is_noticed(path: Path) -> None:
    """Events in a removed file would be lost at the end of the process."""
    store = SqliteStore(path)
    store.append([arrival(1)])
    path.unlink()
    with pytest.raises(InboxError, match="removed while in use"):
        store.append([arrival(2)])
    assert numbers(read(store)) == [1]
    store.close()


def test_a_new_inbox_needs_a_directory_that_can_be_written(path: Path) -> None:
    """If the file cannot be created, the message says that access is denied."""
    path.parent.chmod(0o500)
    with as_ordinary_user(), pytest.raises(InboxError, match="access is denied; check its permissions"):
        SqliteStore(path)


@pytest.mark.parametrize("mode", [0o400, 0o600], ids=["read-only file", "file that may be written"])
def test_a_read_only_inbox_is_read_and_written_later(path: Path, mode: int) -> None:
    """In a directory without write permission the inbox can be read; with it, the same store writes again."""
    with as_ordinary_user():
        fill(path)
        Path(f"{path}-lock").unlink()
        path.chmod(mode)
        path.parent.chmod(0o500)
        store = SqliteStore(path)
        for _ in range(2):
            assert numbers(read(store)) == [0, 1, 2]
            assert store.held().latest == 3
            assert store.consumers() == []
            for refused in (
                lambda: store.append([]),
                lambda: store.append([arrival()]),
                lambda: store.advance("a", 1, 1),
                lambda: store.open_consumer("a", 1, 1),
                lambda: store.prune(FOREVER, 1, 1),
            ):
                with pytest.raises(InboxError, match=r"inbox /.*inbox\.db: .*check its permissions"):
                    refused()
        path.parent.chmod(0o700)
        path.chmod(0o600)
        assert store.append([arrival(3)]).first == 4
        assert numbers(read(store)) == [0, 1, 2, 3]
        store.close()


def test_a_full_disk_loses_nothing_and_is_written_when_it_has_room(path: Path) -> None:
    """An append that does not fit stores nothing; reading works; deleting frees space again."""
    store = SqliteStore(path)
    writer = store._writer
    assert writer is not None
    writer.pragma("max_page_count", 100)
    error, stored = append_until_it_fails(store)
    assert "the disk is full; free some space" in error
    assert numbers(read(store)) == list(range(stored))
    assert store.prune(Retention(1e11, 200_000), 1, 1000) > 0
    assert store.append([arrival(stored, size=1000)]).first == stored + 1
    store.close()


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Make writes fail that would make a file larger than `size` bytes."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def test_a_disk_that_stays_full_is_used_as_far_as_it_goes(path: Path) -> None:
    """Without a free byte, the log is emptied, and deleting frees space; nothing is lost."""
    store = SqliteStore(path)
    kept = 0
    with no_file_beyond(2_000_000):
        for _ in range(3):
            error, stored = append_until_it_fails(store, kept)
            assert "the disk is full" in error or "check the disk and the space on it" in error
            kept += stored
            floor = store.held().floor
            assert numbers(read(store, floor)) == list(range(floor, kept))
            while store.prune(Retention(1e11, 1_000_000), 1, 100):
                pass
            assert store.append([arrival(kept)]).first == kept + 1
            kept += 1
    store.close()
    store = SqliteStore(path)
    floor = store.held().floor
    assert numbers(read(store, floor)) == list(range(floor, kept))
    store.close()


def test_an_inbox_is_read_where_nothing_can_be_written_any_more(path: Path) -> None:
    """Even without space for the shared memory at the start, the events can be read."""
    fill(path)
    with no_file_beyond(0):
        store = SqliteStore(path)
        assert numbers(read(store)) == [0, 1, 2]
        with pytest.raises(InboxError):
            store.append([arrival(3)])
    assert store.append([arrival(3)]).first == 4
    store.close()


def recorded(*, is_closed: bool) -> tuple[bytes, bytes]:
    """Return the bytes of an inbox and of its log; while it is in use, most events are in the log."""
    with fast_directory() as directory:
        path, log = directory / "inbox.db", directory / "inbox.db-wal"
        store = SqliteStore(path)
        for size in (10, 3000, 60_000, 10):
            store.append([arrival(number, size=size) for number in range(8)])
        store.prune(Retention(0, 1 << 40), 10, 5)
        store.open_consumer("somebody", 7, 1)
        if not is_closed:
            return path.read_bytes(), log.read_bytes() + _closed(store)
        store.close()
        return path.read_bytes(), b""


def _closed(store: SqliteStore) -> bytes:
    store.close()
    return b""


CLOSED, IN_USE = recorded(is_closed=True), recorded(is_closed=False)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Damage an inbox or its log: change bytes, remove a part, or set a part to zeros."""
    files = list(draw(st.sampled_from([CLOSED, IN_USE])))
    index = draw(st.integers(0, 1)) if files[1] else 0
    content = bytearray(files[index])
    # Most of what steers SQLite is at the start of a page.
    place = st.integers(0, len(content) - 1) | st.integers(0, len(content) // 4096 - 1).map(
        lambda page: page * 4096
    )
    for _ in range(draw(st.integers(1, 20))):
        at = draw(place) + draw(st.integers(0, 40))
        content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
    if draw(st.booleans()):
        at = draw(place)
        content[at : at + draw(st.integers(1, 10_000))] = bytes(draw(st.sampled_from([0, 0, 4096])))
    files[index] = bytes(content)
    return files[0], files[1]


@given(damaged())
def test_a_damaged_file_raises_nothing_but_store_errors(files: tuple[bytes, bytes]) -> None:
    """With any content of the file, every method returns or raises InboxError."""
    with fast_directory() as directory:
        path = directory / "inbox.db"
        path.write_bytes(files[0])
        (directory / "inbox.db-wal").write_bytes(files[1])
        try:
            store = SqliteStore(path)
        except InboxError:
            return
        for use in (
            lambda: store.held(),
            lambda: store.read(EVERYTHING, 0, 100, 100, 1 << 20),
            lambda: store.read(EVERYTHING, 20, MOST, 100, 1 << 20),
            lambda: store.read(Filter(types=TypeSet([range(37913, 37914)])), 0, 100, 100, 1 << 20),
            lambda: store.read(Filter(peer_ids=frozenset({ALICE})), 0, 100, 100, 1 << 20),
            lambda: store.consumers(),
            lambda: store.advance("somebody", 9, 1),
            lambda: store.append([arrival(size=100)] * 20),
            lambda: store.prune(Retention(0, 0), 10, 10),
            lambda: store.open_consumer("somebody else", 3, 1),
            lambda: store.delete_consumer("somebody"),
            lambda: store.read(EVERYTHING, 0, 100, 100, 1 << 20),
        ):
            with suppress(InboxError):
                use()
        store.close()
