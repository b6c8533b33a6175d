"""Reading by an index finds the same events as reading everything, and reads few others."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Event,
    InboxError,
    PositionError,
    PositionInvalid,
    PositionOfOtherInbox,
)
from custommsg_server.inbox.sqlite import reading
from custommsg_server.inbox.sqlite.position import Positions
from custommsg_server.inbox.sqlite.reading import search_for
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import EVERYTHING, arrival, fast_directory, read, sequences

COUNT = 6000
PEERS = [b"\x02" + number.to_bytes(32, "big") for number in range(40)]
TYPES = [number * 1300 for number in range(50)]
KINDS = [Kind.MESSAGE] * 30 + [Kind.CONNECTED, Kind.DISCONNECTED, Kind.INTERRUPTION]


def skewed(draw: random.Random, values: list[int]) -> int:
    """Draw one of several values, the first ones far more often."""
    return values[min(int(draw.expovariate(0.2)), len(values) - 1)]


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    """Make an inbox of several blocks, with gaps, and with a part deleted by the retention."""
    draw = random.Random(3)
    with fast_directory() as directory:
        store = SqliteStore(directory / "inbox.db")
        while store.held().latest < COUNT:
            store.append(
                [
                    arrival(
                        number,
                        kind=draw.choice(KINDS),
                        peer_id=PEERS[skewed(draw, list(range(40)))],
                        message_type=skewed(draw, TYPES),
                        size=draw.choice([10, 10, 2000]),
                    )
                    for number in range(draw.randrange(1, 300))
                ]
                + [Arrival(Kind.INTERRUPTION, 1)]
            )
        with store._writing() as connection:
            connection.execute("DELETE FROM events WHERE sequence % 7 = 3 OR sequence BETWEEN 2500 AND 3700")
            connection.execute("DELETE FROM events WHERE sequence <= 500")
            connection.execute("UPDATE meta SET value = 500 WHERE name = 'floor'")
        yield store
        store.close()


peers = st.frozensets(st.sampled_from([*PEERS, b"\x03" + bytes(32)]), max_size=45)
ranges = st.builds(
    lambda first, size: range(first, min(first + size, 65_536)),
    st.sampled_from(TYPES) | st.integers(0, 65_535),
    st.sampled_from([1, 1, 2, 1300, 5000, 65_536]),
)
filters = st.builds(
    Filter,
    peer_ids=st.none() | peers,
    types=st.none() | st.lists(ranges, max_size=6).map(TypeSet),
    peer_events=st.booleans(),
)


@given(
    wanted=filters,
    after=st.integers(500, COUNT),
    until=st.integers(500, COUNT + 300),
    limit=st.sampled_from([1, 7, 100, 500, 10_000]),
    max_size=st.sampled_from([1, 5000, 1 << 20]),
)
def test_a_read_finds_what_passes_the_filter(
    store: SqliteStore, wanted: Filter, after: int, until: int, limit: int, max_size: int
) -> None:
    """With an index or without, in chunks of any size: each event once, in order."""
    until = min(until, store.held().latest)
    found: list[Event] = []
    place, turns = after, 0
    while place < until and (limit > 1 or turns < 100):
        chunk = store.read(wanted, place, until, limit, max_size)
        assert place < chunk.end <= until
        assert len(chunk.events) <= limit
        assert len(chunk.events) <= 1 or sum(len(one.arrival.message) for one in chunk.events) <= max_size
        assert chunk.floor == 500
        found += chunk.events
        place, turns = chunk.end, turns + 1
    everything = read(store, after)
    assert found == [
        event
        for event, sequence in zip(everything, sequences(everything), strict=True)
        if sequence <= place and wanted.passes(event.arrival)
    ]


def test_a_narrow_reader_reads_what_it_wants_and_little_else(store: SqliteStore) -> None:
    """The wanted rows and the interruptions, and no others."""
    latest = store.held().latest
    for wanted in (
        Filter(types=TypeSet([range(TYPES[30], TYPES[30] + 1)])),
        Filter(peer_ids=frozenset({PEERS[25]})),
        Filter(peer_ids=frozenset({PEERS[25], PEERS[39]}), peer_events=True),
    ):
        place, rows, found = 500, 0, 0
        while place < latest:
            chunk = store.read(wanted, place, latest, 500, 1 << 20)
            place, rows, found = chunk.end, rows + chunk.rows, found + len(chunk.events)
        connects = 0 if wanted.peer_events else rows // 10 + 2
        assert found <= rows <= found + connects < 500


def test_a_read_ends_after_enough_look_ups(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nothing was found: it returns the place that it reached, and the next read continues there."""
    monkeypatch.setattr(reading, "_MOST_SEEKS", 4)
    latest = store.held().latest
    nobody = Filter(peer_ids=frozenset({b"\x03" + bytes(32)}))
    chunk = store.read(nobody, 500, latest, 500, 1 << 20)
    assert [one.arrival.kind for one in chunk.events] == [Kind.INTERRUPTION] * len(chunk.events)
    assert 1000 < chunk.end < latest
    place, found = 500, 0
    while place < latest:
        chunk = store.read(nobody, place, latest, 500, 1 << 20)
        assert place < chunk.end
        place, found = chunk.end, found + len(chunk.events)
    assert found == sum(nobody.passes(event.arrival) for event in read(store, 500)) > 0


@pytest.mark.parametrize(
    ("wanted", "has_index"),
    [
        (Filter(), False),
        (EVERYTHING, False),
        (Filter(types=TypeSet([range(37913, 37914)])), True),
        (Filter(types=TypeSet([])), True),
        (Filter(types=TypeSet([range(32768, 65536)])), False),
        (Filter(types=TypeSet([range(one, one + 1) for one in range(0, 4000, 2)])), False),
        (Filter(peer_ids=frozenset()), True),
        (Filter(peer_ids=frozenset(PEERS), types=TypeSet([range(65_536)])), True),
        (Filter(peer_ids=frozenset(one.to_bytes(33, "big") for one in range(1001))), False),
    ],
)
def test_what_is_wide_reads_everything(wanted: Filter, has_index: bool) -> None:
    """An index is slower if nearly all events match."""
    assert (search_for(wanted) is not None) is has_index


@pytest.mark.parametrize("wanted", [Filter(types=TypeSet([range(5)])), Filter(peer_ids=frozenset(PEERS[:3]))])
def test_a_search_is_one_in_the_index(store: SqliteStore, wanted: Filter) -> None:
    """Only the index is searched; rows are read by their sequence number."""
    search = search_for(wanted)
    assert search is not None
    with store._readers.borrow() as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN " + search.statement, (0, COUNT, 500, *search.keys)
        ).fetchall()
    steps = [str(step[-1]) for step in plan]
    assert any("SEARCH e USING COVERING INDEX events_by_" in step for step in steps), steps
    assert any("SEARCH e USING INTEGER PRIMARY KEY" in step for step in steps), steps
    assert not any(step.startswith(("SCAN e ", "SCAN events")) for step in steps), steps


@pytest.mark.parametrize("table", ["peers", "nodes"])
def test_a_missing_row_is_not_passed_over_in_silence(table: str) -> None:
    """In a damaged file, an event may lack its peer or its node: that is an error."""
    with fast_directory() as directory:
        store = SqliteStore(directory / "inbox.db")
        store.append([arrival(number) for number in range(10)])
        with store._writing() as connection:
            connection.execute(f"DELETE FROM {table}")
        for wanted in (EVERYTHING, Filter(types=TypeSet([range(37913, 37914)]))):
            with pytest.raises(InboxError, match="not as it was written"):
                store.read(wanted, 0, 10, 100, 1 << 20)
        store.close()


POSITIONS = Positions("0123456789abcdef" * 2)


@given(st.integers(0, 2**63 - 1))
def test_a_position_is_read_as_it_was_made(sequence: int) -> None:
    """Any sequence number that a file can hold."""
    assert POSITIONS.sequence(POSITIONS.of(sequence)) == sequence


@given(
    st.text(max_size=40)
    | st.from_regex(r"[0-9a-fA-F]{15,17}-[0-9+ _-]{0,20}\n?")
    | st.from_regex(r"0123456789abcdef-[0-9\u0660-\u0669]{1,20}", fullmatch=True)
)
def test_a_text_is_a_position_or_refused(text: str) -> None:
    """Each position has only one valid text."""
    try:
        sequence = POSITIONS.sequence(text)  # type: ignore[arg-type]
    except PositionError as error:
        assert isinstance(error, PositionInvalid | PositionOfOtherInbox)
    else:
        assert POSITIONS.of(sequence) == text
