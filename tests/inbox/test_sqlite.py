"""The store of the SQLite engine: storing, deleting, counting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.reading import Held
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import (
    ALICE,
    BOB,
    EVERYTHING,
    FOREVER,
    OURS,
    arrival,
    nameless,
    numbers,
    read,
    sequences,
)

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


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask the file."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_what_is_stored_is_read_as_it_was(store: SqliteStore) -> None:
    """Every field of every kind of event, with any bytes."""
    arrivals = [
        Arrival(Kind.MESSAGE, 2**62, ALICE, b"\x00\x00'\xff\x00" + bytes(range(256)), node_id=OURS, id="a"),
        Arrival(Kind.MESSAGE, 1, BOB, b"\x94\x19" + bytes(65_533)),
        Arrival(Kind.CONNECTED, 2, ALICE, node_id=BOB),
        Arrival(Kind.DISCONNECTED, 3, ALICE),
        Arrival(Kind.INTERRUPTION, 4, lost=7, node_id=OURS),
        Arrival(Kind.INTERRUPTION, 4, ALICE, lost=1),
    ]
    stored = store.append(arrivals)
    assert stored.first == 1
    assert [event.arrival for event in stored.events] == arrivals
    assert sequences(stored.events) == [1, 2, 3, 4, 5, 6]
    events = read(store)
    assert [event.position for event in events] == [event.position for event in stored.events]
    assert [event.arrival for event in events] == [nameless(one) for one in arrivals]


@pytest.mark.parametrize("peers", [1, 200])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 127, 128, 129, 1000])
def test_a_batch_of_any_length_is_stored_in_order(store: SqliteStore, count: int, peers: int) -> None:
    """Any number of events, from any number of peers: each is stored once, in order."""
    store.append([arrival(0)])
    arrivals = [
        arrival(number, peer_id=b"\x02" + bytes(28) + (number % peers).to_bytes(4, "big"))
        for number in range(1, count + 1)
    ]
    store.append(arrivals)
    events = read(store)
    assert [event.arrival for event in events[1:]] == arrivals
    assert sequences(events) == list(range(1, count + 2))


def test_a_read_is_bounded_by_count_and_by_size(store: SqliteStore) -> None:
    """A read returns at most what was asked for, and at least one event if there is one."""
    store.append([arrival(number, size=1000) for number in range(10)])
    for limit, size, expected, end in (
        (4, MEGABYTE, [4, 5, 6, 7], 7),
        (10, 2500, [4, 5], 5),
        (10, 10, [4], 4),
        (100, MEGABYTE, [4, 5, 6, 7, 8, 9], 9),
    ):
        chunk = store.read(EVERYTHING, 3, 9, limit, size)
        assert (sequences(chunk.events), chunk.end, chunk.floor) == (expected, end, 0)
    chunk = store.read(EVERYTHING, 10, 10, 10, MEGABYTE)
    assert (chunk.events, chunk.end) == ([], 10)


def test_what_is_held_is_told(store: SqliteStore) -> None:
    """Of an empty, a filled, a pruned and an emptied inbox."""
    assert store.held() == Held(0, 0, 0, store.held().size, 0)
    for time in (10, 20, 30):
        store.append([arrival(time_ns=time)])
        assert store.prune(Retention(25e-9, 1 << 40), time, 1000) == 0
    assert store.held() == Held(0, 3, 3, store.held().size, 10)
    store.prune(Retention(15e-9, 1 << 40), 30, 1000)
    assert store.held() == Held(1, 3, 2, store.held().size, 20)
    store.prune(NOTHING, 1000, 1000)
    assert store.held() == Held(3, 3, 0, store.held().size, 0)


def test_a_sequence_number_is_never_used_again(path: Path) -> None:
    """Even after all events were deleted and the process was restarted."""
    for first in (1, 4, 7):
        store = SqliteStore(path)
        assert sequences(store.append([arrival()] * 3).events) == [first, first + 1, first + 2]
        assert store.prune(NOTHING, 1000, 1000) == 3
        store.close()


def test_an_inbox_has_a_name_of_its_own(path: Path, tmp_path: Path) -> None:
    """The id stays with the file, and another file has another id."""
    store, other = SqliteStore(path), SqliteStore(tmp_path / "other.db")
    position = store.positions.of(0)
    assert other.positions.of(0) != position
    store.close()
    other.close()
    again = SqliteStore(path)
    assert again.positions.of(0) == position
    again.close()


def test_only_the_owner_may_read_the_files(store: SqliteStore, path: Path) -> None:
    """Other users of the machine must not read the messages."""
    store.append([arrival()])
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["inbox.db", "inbox.db-lock", "inbox.db-shm", "inbox.db-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """Characters with a meaning in URIs are escaped."""
    store = SqliteStore(tmp_path / "50% of a?b#c;d e.db")
    store.append([arrival(1)])
    assert numbers(read(store)) == [1]
    store.close()


def test_a_consumer_only_moves_forward(store: SqliteStore) -> None:
    """A late acknowledgement changes nothing, and no acknowledgement creates a consumer."""
    assert store.advance("b", 5, 1) is None
    assert store.consumers() == []
    assert store.open_consumer("b", 2, 1) == 2
    assert store.open_consumer("b", 1, 2) == 2
    assert store.advance("b", 5, 3) == 5
    assert store.advance("b", 3, 4) == 5
    assert store.open_consumer("a", 0, 3) == 0
    assert store.consumers() == [("a", 0, 3), ("b", 5, 4)]
    assert store.delete_consumer("b")
    assert not store.delete_consumer("b")
    assert store.consumers() == [("a", 0, 3)]


def test_many_threads_use_one_store(store: SqliteStore) -> None:
    """Readers see whole commits in order while others write."""
    failures: list[BaseException] = []
    store.open_consumer("a", 0, 1)

    def guarded(job: object) -> None:
        try:
            job()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    def write() -> None:
        for _ in range(30):
            store.append([arrival()] * 10)
            store.advance("a", store.held().latest, 1)

    def follow() -> None:
        position = 0
        while position < 600:
            for sequence in sequences(store.read(EVERYTHING, position, 600, 7, MEGABYTE).events):
                assert sequence == position + 1
                position = sequence
            held = store.held()
            assert held.latest % 10 == 0

    threads = [threading.Thread(target=guarded, args=[job]) for job in (write, write, follow, follow, follow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [position for _, position, _ in store.consumers()] == [600]


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    """Each method raises InboxError; closing twice is allowed."""
    store.close()
    store.close()
    with pytest.raises(InboxError, match="closed"):
        store.append([arrival()])
    with pytest.raises(InboxError, match="closed"):
        store.read(EVERYTHING, 0, 1, 1, 1)


def test_each_peer_has_an_account(store: SqliteStore, path: Path) -> None:
    """It counts events and bytes; without events it is deleted; events that concern all peers have one, too."""

    def accounts() -> dict[object, tuple[object, object]]:
        return {
            peer: (events, size)
            for peer, events, size in query(path, "SELECT peer_id, events, bytes FROM peers")
        }

    store.append([arrival(size=100), arrival(size=1000, peer_id=BOB), arrival(kind=Kind.CONNECTED)])
    store.append([arrival(size=50), Arrival(Kind.INTERRUPTION, 5)])
    assert accounts() == {ALICE: (3, 150 + 3 * 64), BOB: (1, 1064), b"": (1, 64)}
    for peer, _ in accounts().items():
        counted = query(
            path,
            "SELECT count(*), sum(length(message) + 64) FROM events JOIN peers ON peers.id = peer"
            f" WHERE peer_id = x'{bytes(peer).hex()}'",  # type: ignore[arg-type]
        )
        assert [accounts()[peer]] == counted
    assert store.prune(NOTHING, 1000, 2) == 2
    assert accounts() == {ALICE: (2, 50 + 2 * 64), b"": (1, 64)}
    assert store.prune(NOTHING, 1000, 1000) == 3
    assert accounts() == {}
    store.append([arrival(7, peer_id=BOB)])
    assert accounts() == {BOB: (1, 74)}
    assert [event.arrival.peer_id for event in read(store)] == [BOB]


def test_the_floor_is_what_the_retention_deleted(store: SqliteStore, path: Path) -> None:
    """A single missing event does not move it."""
    store.append([arrival(number) for number in range(1, 11)])
    with store._writing() as connection:
        connection.execute("DELETE FROM events WHERE sequence IN (1, 2, 5, 10)")
    chunk = store.read(EVERYTHING, 0, 10, 100, MEGABYTE)
    assert (numbers(chunk.events), chunk.end, chunk.floor) == ([3, 4, 6, 7, 8, 9], 10, 0)
    assert store.prune(NOTHING, 1000, 3) == 3
    chunk = store.read(EVERYTHING, 6, 10, 100, MEGABYTE)
    assert (numbers(chunk.events), chunk.floor) == ([7, 8, 9], 6)
    store.close()
    store = SqliteStore(path)
    assert store.held().floor == 6
    store.close()


def test_a_commit_whose_outcome_is_unknown_is_not_made_twice(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest events in the file are compared with the arrivals; other events in it stay."""

    def commit(connection: apsw.Connection) -> None:
        connection.execute("COMMIT")
        raise apsw.IOError("disk I/O error")

    def in_doubt(*arrivals: Arrival) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(store, "_commit", commit)
            with pytest.raises(InboxError, match="disk I/O error"):
                store.append(arrivals)

    a, b, c = arrival(1, name="a"), arrival(2), arrival(3)
    in_doubt(a, b)
    stored = store.append([a, b, c])
    assert (stored.first, numbers(stored.events)) == (1, [1, 2, 3])
    in_doubt(a)
    in_doubt(a)  # it is seen that the first one took effect
    assert store.append([a]).first == 4
    in_doubt(b)
    stored = store.append([c, b])  # not the same: whoever appended has given up the first one
    assert (stored.first, numbers(stored.events)) == (6, [3, 2])
    in_doubt(a, b)
    assert store.append([a]).first == 10, "fewer than were stored: they cannot be the same"
    assert numbers(read(store)) == [1, 2, 3, 1, 2, 3, 2, 1, 2, 1]
    assert store.held().count == 10


def test_what_is_too_old_is_deleted_oldest_first(store: SqliteStore) -> None:
    """Deleting ends at the first event that is young enough; later events stay."""
    for now in (10, 20, 50):
        store.append([arrival()])
        assert store.prune(Retention(40e-9, 1 << 40), now, 1000) == (now == 50)
    store.append([arrival()])
    assert store.prune(Retention(25e-9, 1 << 40), 50, 1000) == 1
    assert sequences(read(store)) == [3, 4]
    assert store.prune(Retention(25e-9, 1 << 40), 50, 1000) == 0


def test_what_is_too_much_is_deleted_and_hardly_more(store: SqliteStore) -> None:
    """Deleting ends slightly below the maximum size."""
    store.append([arrival(number, size=1000) for number in range(2000)])
    while store.prune(Retention(1e9, MEGABYTE), 1, 100):
        pass
    assert MEGABYTE - 65_536 <= store.held().size <= MEGABYTE
    assert store.held().latest == 2000


def test_deleting_goes_in_steps(store: SqliteStore) -> None:
    """A step deletes at most as many events as asked for, and few enough bytes to be fast."""
    store.append([arrival(size=65_000)] * 200)
    assert store.prune(NOTHING, 1000, 10) == 10
    assert 50 < store.prune(NOTHING, 1000, 1000) < 100


@pytest.mark.parametrize("size", [10, 1000, 65_535])
def test_the_files_do_not_grow_while_old_makes_room_for_new(
    store: SqliteStore, path: Path, size: int
) -> None:
    """Free pages and the log are used again."""
    retention = Retention(1e9, MEGABYTE)
    batch = [arrival(size=size)] * max(1, 300_000 // (size + 60))
    sizes: list[int] = []
    for _ in range(40):
        position = store.append(batch).first
        read(store, position)
        while store.prune(retention, 1, 1000):
            pass
        sizes.append(sum(file.stat().st_size for file in path.parent.iterdir()))
    assert max(sizes) < 8 * MEGABYTE
    assert max(sizes[20:]) <= max(sizes[:20]) + 65_536


def test_nothing_is_deleted_before_its_time(store: SqliteStore) -> None:
    """While age and size allow it, all events stay."""
    store.append([arrival()] * 100)
    assert store.prune(FOREVER, 10**18, 1000) == 0
    assert store.prune(Retention(float("inf"), 1 << 40), 1, 1000) == 0
    assert (store.held().count, store.held().floor) == (100, 0)
