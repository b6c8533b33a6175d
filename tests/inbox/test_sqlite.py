"""The SQLite store, as the port describes a store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from custommsg_server.inbox.port import Arrival, Consumer, Kind, Range, Retention, StoreError
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import ALICE, BOB, FOREVER, arrival, numbers, sequences

NOTHING = Retention(max_age=0, max_size=0)
MEGABYTE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def test_what_is_stored_is_read_as_it_was(store: SqliteStore) -> None:
    """Every field of every kind of event survives, whatever bytes it holds."""
    arrivals = [
        Arrival(Kind.MESSAGE, 2**62, ALICE, b"\x00\x00'\xff\x00" + bytes(range(256))),
        Arrival(Kind.MESSAGE, 1, BOB, b"\x94\x19" + bytes(65_533)),
        Arrival(Kind.CONNECTED, 2, ALICE),
        Arrival(Kind.DISCONNECTED, 3, ALICE),
        Arrival(Kind.INTERRUPTION, 4, lost=7),
    ]
    appended = store.append(arrivals)
    assert [event.arrival for event in appended] == arrivals
    assert sequences(appended) == [1, 2, 3, 4, 5]
    assert store.read(0, 10, MEGABYTE) == appended


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 127, 128, 129, 1000])
def test_a_batch_of_any_length_is_stored_in_order(store: SqliteStore, count: int) -> None:
    """However many arrive together, each is stored once, in its place."""
    store.append([arrival(0)])
    store.append([arrival(number) for number in range(1, count + 1)])
    events = store.read(0, 2000, MEGABYTE)
    assert numbers(events) == list(range(count + 1))
    assert sequences(events) == list(range(1, count + 2))


def test_a_read_is_bounded_by_count_and_by_size(store: SqliteStore) -> None:
    """A read returns what was asked for at most, but never nothing while there is something."""
    store.append([arrival(number, size=1000) for number in range(10)])
    assert sequences(store.read(3, 4, MEGABYTE)) == [4, 5, 6, 7]
    assert sequences(store.read(3, 10, 2500)) == [4, 5]
    assert sequences(store.read(3, 10, 10)) == [4]
    assert store.read(10, 10, MEGABYTE) == []


def test_the_range_says_what_is_held(store: SqliteStore) -> None:
    """An empty, a filled, a pruned and an emptied inbox each say what they hold."""
    assert store.range() == Range(1, 0, 0, store.range().size, 0)
    store.append([arrival(time_ns=time) for time in (10, 20, 30)])
    assert store.range() == Range(1, 3, 3, store.range().size, 10)
    store.prune(Retention(15e-9, 1 << 40), 30, 1000)
    assert store.range() == Range(2, 3, 2, store.range().size, 20)
    store.prune(NOTHING, 1000, 1000)
    assert store.range() == Range(4, 3, 0, store.range().size, 0)


def test_a_sequence_number_is_never_used_again(path: Path) -> None:
    """Not even after everything was forgotten and the process has started again."""
    for first in (1, 4, 7):
        store = SqliteStore(path)
        assert sequences(store.append([arrival()] * 3)) == [first, first + 1, first + 2]
        assert store.prune(NOTHING, 1000, 1000) == 3
        store.close()


def test_an_inbox_has_a_name_of_its_own(path: Path, tmp_path: Path) -> None:
    """The name stays with the file, and another file has another."""
    store, other = SqliteStore(path), SqliteStore(tmp_path / "other.db")
    name = store.inbox_id
    assert len(name) == 32
    assert other.inbox_id != name
    store.close()
    other.close()
    again = SqliteStore(path)
    assert again.inbox_id == name
    again.close()


def test_only_the_owner_may_read_the_files(store: SqliteStore, path: Path) -> None:
    """What peers sent is for nobody else on the machine."""
    store.append([arrival()])
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["inbox.db", "inbox.db-lock", "inbox.db-shm", "inbox.db-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """Characters that mean something in an address are only characters in a path."""
    store = SqliteStore(tmp_path / "50% of a?b#c;d e.db")
    store.append([arrival(1)])
    assert numbers(store.read(0, 1, 1000)) == [1]
    store.close()


def test_a_consumer_only_moves_forward(store: SqliteStore) -> None:
    """An acknowledgement that comes late changes no position."""
    assert store.consumers() == []
    assert store.advance("b", 5, 1) == 5
    assert store.advance("b", 3, 2) == 5
    assert store.advance("a", 0, 3) == 0
    assert store.consumers() == [Consumer("a", 0, 3), Consumer("b", 5, 2)]
    assert store.forget("b")
    assert not store.forget("b")
    assert store.consumers() == [Consumer("a", 0, 3)]


def test_many_threads_use_one_store(store: SqliteStore) -> None:
    """Readers see whole commits in order while others write."""
    failures: list[BaseException] = []

    def guarded(job: object) -> None:
        try:
            job()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    def write() -> None:
        for _ in range(30):
            store.append([arrival()] * 10)
            store.advance("a", store.range().latest, 1)

    def read() -> None:
        position = 0
        while position < 600:
            for event in store.read(position, 7, MEGABYTE):
                assert event.sequence == position + 1
                position = event.sequence
            assert store.range().latest % 10 == 0

    threads = [threading.Thread(target=guarded, args=[job]) for job in (write, write, read, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [consumer.position for consumer in store.consumers()] == [600]


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    """Whoever comes too late gets a StoreError, and may close once more."""
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.append([arrival()])
    with pytest.raises(StoreError, match="closed"):
        store.read(0, 1, 1)


def test_what_is_too_old_is_forgotten_oldest_first(store: SqliteStore) -> None:
    """Age ends with the first event that is young enough; what is behind it stays, whatever its clock said."""
    store.append([arrival(time_ns=time) for time in (10, 20, 50, 10)])
    assert store.prune(Retention(25e-9, 1 << 40), 50, 1000) == 2
    assert sequences(store.read(0, 10, MEGABYTE)) == [3, 4]
    assert store.prune(Retention(25e-9, 1 << 40), 50, 1000) == 0


def test_what_is_too_much_is_forgotten_and_hardly_more(store: SqliteStore) -> None:
    """Forgetting ends a little below the size that is allowed."""
    store.append([arrival(number, size=1000) for number in range(2000)])
    while store.prune(Retention(1e9, MEGABYTE), 1, 100):
        pass
    assert MEGABYTE - 65_536 <= store.range().size <= MEGABYTE
    assert store.range().latest == 2000


def test_forgetting_goes_in_steps(store: SqliteStore) -> None:
    """No step takes more than asked for, nor so many bytes that the writer has to wait for long."""
    store.append([arrival(size=65_000)] * 200)
    assert store.prune(NOTHING, 1000, 10) == 10
    assert 50 < store.prune(NOTHING, 1000, 1000) < 100


@pytest.mark.parametrize("size", [10, 1000, 65_535])
def test_the_files_do_not_grow_while_old_makes_room_for_new(
    store: SqliteStore, path: Path, size: int
) -> None:
    """Pages that were forgotten are used again, and so is the log."""
    retention = Retention(1e9, MEGABYTE)
    batch = [arrival(size=size)] * max(1, 300_000 // (size + 60))
    sizes: list[int] = []
    for _ in range(40):
        position = store.append(batch)[0].sequence
        store.read(position, 100, MEGABYTE)
        while store.prune(retention, 1, 1000):
            pass
        sizes.append(sum(file.stat().st_size for file in path.parent.iterdir()))
    assert max(sizes) < 8 * MEGABYTE
    assert max(sizes[20:]) <= max(sizes[:20]) + 65_536


def test_nothing_is_forgotten_before_its_time(store: SqliteStore) -> None:
    """While age and size allow it, everything stays."""
    store.append([arrival()] * 100)
    assert store.prune(FOREVER, 10**18, 1000) == 0
    assert store.prune(Retention(float("inf"), 1 << 40), 1, 1000) == 0
    assert store.range().count == 100
