"""The share of each peer: a peer that fills the inbox loses only its own events, with an interruption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, PositionExpired, Start
from custommsg_server.inbox.sqlite.feed import Feed
from custommsg_server.inbox.sqlite.inbox import SqliteInbox
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Evicted, Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import (
    ALICE,
    BOB,
    EVERYTHING,
    arrival,
    collect,
    fast_directory,
    numbers,
    read,
    sequences,
)

MEGABYTE = 1 << 20
KEEPS = Retention(1e9, 2 * MEGABYTE)
LARGE = 10_000
CAROL = b"\x02" + b"c" * 32
DAVE = b"\x02" + b"d" * 32


def of(peer_id: bytes, first: int, last: int, size: int = LARGE) -> list[Arrival]:
    """Make messages of a peer with these numbers."""
    return [arrival(number, peer_id=peer_id, size=size) for number in range(first, last + 1)]


def kept(events: Sequence[Event], peer_id: bytes) -> list[int]:
    """Return the numbers of a peer's stored messages."""
    return numbers([one for one in events if one.arrival.message and one.arrival.peer_id == peer_id])


def gaps(events: Sequence[Event], peer_id: bytes) -> list[int]:
    """Return the numbers of lost messages in a peer's interruptions."""
    return [
        one.arrival.lost
        for one in events
        if one.arrival.kind is Kind.INTERRUPTION and one.arrival.peer_id == peer_id
    ]


def clear(store: SqliteStore, retention: Retention = KEEPS, favored: Sequence[bytes] = ()) -> None:
    """Delete events until the size is allowed, as the writer does."""
    names = json.dumps([peer_id.hex() for peer_id in favored])
    while store.prune(retention, 1, 1000, 0, names) or store.evict(retention, 1000, names):
        pass


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "inbox.db")


def test_a_peer_that_floods_loses_its_own_and_nobody_else_s(store: SqliteStore) -> None:
    """The events of others stay, and the floor does not move."""
    store.append(of(BOB, 1, 20))
    for first in range(0, 3000, 50):
        store.append([*of(ALICE, first, first + 49), *of(CAROL, first // 50, first // 50, size=100)])
        clear(store)
    events = read(store)
    assert kept(events, BOB) == list(range(1, 21))
    assert kept(events, CAROL) == list(range(60))
    there = kept(events, ALICE)
    assert 100 < len(there) < 250
    assert there == list(range(3000 - len(there), 3000)), "its oldest go"
    assert gaps(events, ALICE) == [3000 - len(there)], "one interruption says how many"
    assert store.held().floor == 0
    assert KEEPS.max_size - 100_000 < store.held().size <= KEEPS.max_size
    store.close()


async def test_no_consumer_expires_because_a_peer_floods(tmp_path: Path) -> None:
    """If a peer fills the inbox while a consumer is disconnected, the consumer gets the events of the others."""
    async with SqliteInbox(tmp_path / "inbox.db", KEEPS) as inbox:
        start = await inbox.consumers.open("shop", Start.LIVE)
        live = await inbox.subscribe(Filter(peer_ids=frozenset({ALICE})), Start.LIVE)
        seen: list[Event] = []
        await inbox.append(of(BOB, 1, 20))
        for first in range(0, 1000, 50):
            await inbox.append(of(ALICE, first, first + 49))
            seen += await collect(live, 50)
        while (await inbox.bounds()).size > KEEPS.max_size:
            await asyncio.sleep(0)
        [consumer] = await inbox.consumers.list()
        assert not consumer.is_expired
        last = await inbox.append([arrival(7, peer_id=BOB)])
        subscription = await inbox.subscribe(EVERYTHING, start)
        events: list[Event] = []
        while subscription.position != last[0]:
            events += (await anext(subscription)).events
        assert kept(events, BOB) == [*range(1, 21), 7]
        assert sum(gaps(events, ALICE)) + len(kept(events, ALICE)) == 1000
        assert kept(seen, ALICE) == list(range(1000))
        assert gaps(seen, ALICE) == [], "who has read them already is told nothing"
        bounds = await inbox.bounds()
        assert bounds.evicted == sum(gaps(events, ALICE))
        assert bounds.largest_share > 0.5


def test_who_is_behind_is_told_once_and_in_its_place(store: SqliteStore) -> None:
    """The interruption replaces the last deleted event; subscribers that have read past it do not get it."""
    store.append([*of(BOB, 1, 1), *of(ALICE, 1, 400)])
    clear(store)
    bob, interruption, *rest = read(store)
    assert bob.arrival.peer_id == BOB
    lost = interruption.arrival.lost
    assert (interruption.arrival.kind, interruption.arrival.peer_id) == (Kind.INTERRUPTION, ALICE)
    assert sequences([interruption]) == [1 + lost]
    assert numbers(rest) == list(range(lost + 1, 401))
    store.append(of(ALICE, 401, 500))
    clear(store)
    more = read(store)[1].arrival.lost
    assert more > lost
    assert gaps(read(store, 1 + lost), ALICE) == [more], "who had read the first one is behind again"
    assert gaps(read(store, 1 + more), ALICE) == [], "who has passed it is not"
    store.close()


def test_many_peers_cannot_do_together_what_one_cannot(store: SqliteStore) -> None:
    """Node ids are free: while each of them has more data than a small peer, the small peer loses nothing."""
    store.append(of(BOB, 1, 5, size=1000))
    for turn in range(40):
        for number in range(30):
            store.append(of(b"\x02" + bytes([number]) * 32, turn, turn))
        clear(store)
    assert kept(read(store), BOB) == [1, 2, 3, 4, 5]
    assert store.held().floor == 0
    store.close()


def test_when_all_hold_about_the_same_the_oldest_go(store: SqliteStore) -> None:
    """The oldest events of all peers; then the floor moves, and positions before it are expired."""
    for turn in range(300):
        store.append([*of(ALICE, turn, turn), *of(BOB, turn, turn)])
    clear(store)
    events = read(store)
    assert gaps(events, ALICE) == gaps(events, BOB) == []
    assert abs(len(kept(events, ALICE)) - len(kept(events, BOB))) <= 1
    assert store.held().floor == 600 - len(events)
    store.close()


def test_more_is_kept_of_peers_with_channels(tmp_path: Path) -> None:
    """They may have several times as much data as others; the others still have a part."""
    for favored, expected in (([], False), ([BOB, CAROL], True)):
        store = SqliteStore(tmp_path / f"{expected}.db")
        store.append(of(BOB, 1, 150))
        for first in range(0, 300, 20):
            store.append(of(ALICE, first, first + 19))
            clear(store, favored=favored)
        assert (kept(read(store), BOB) == list(range(1, 151))) is expected
        store.append(of(BOB, 151, 600))
        clear(store, favored=favored)
        bob, alice = (len(kept(read(store), one)) for one in (BOB, ALICE))
        assert 0 < alice < bob < 200
        store.close()


@pytest.mark.parametrize("share", [0.6, 0.0])
def test_what_a_consumer_has_not_acknowledged_goes_last(store: SqliteStore, share: float) -> None:
    """Up to its limit; without such events, the largest peer loses its events as usual."""
    retention = Retention(1e9, 2 * MEGABYTE, consumer_share=share)
    store.append([*of(BOB, 1, 75), *of(DAVE, 1, 20)])
    store.open_consumer("shop", 95, 1)
    store.append([*of(ALICE, 1, 100), *of(CAROL, 1, 20)])
    clear(store, retention)
    events = read(store)
    assert (kept(events, ALICE) == list(range(1, 101))) is (share > 0)
    assert (kept(events, BOB) == list(range(1, 76))) is (share == 0)
    store.close()


def test_a_consumer_that_never_acknowledges_holds_no_more_than_its_bound(store: SqliteStore) -> None:
    """The inbox continues, and does not exceed its size."""
    store.open_consumer("gone", 0, 1)
    store.append(of(BOB, 1, 5))
    for first in range(0, 1000, 50):
        store.append(of(ALICE, first, first + 49))
        clear(store)
        assert store.held().size <= KEEPS.max_size
    assert kept(read(store), BOB) == [1, 2, 3, 4, 5]
    assert kept(read(store), ALICE)[-1] == 999
    store.close()


async def test_memory_does_not_give_out_what_was_evicted(tmp_path: Path) -> None:
    """The newest events are in memory and in the file; both have the same events."""
    async with SqliteInbox(tmp_path / "inbox.db", Retention(1e9, MEGABYTE)) as inbox:
        start = await inbox.consumers.open("shop", Start.LIVE)
        await inbox.append(of(BOB, 1, 2))
        for first in range(0, 400, 50):  # four times as much as is kept, half of what fits into memory
            last = await inbox.append(of(ALICE, first, first + 49))
        while (await inbox.bounds()).size > MEGABYTE:
            await asyncio.sleep(0)
        stored = inbox._store
        assert stored is not None
        subscription = await inbox.subscribe(EVERYTHING, start)
        events: list[Event] = []
        while subscription.position != last[-1]:
            events += (await anext(subscription)).events
        assert events == read(stored)
        assert gaps(events, ALICE) == [400 - len(kept(events, ALICE))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ALICE, ALICE, BOB, CAROL]), st.integers(1, 60), st.sampled_from([100, 3000])
        )
        | st.sampled_from(["clear", "subscribe", "read", "read"]),
        max_size=40,
    ),
    st.integers(0, 1),
)
def test_nothing_is_missing_without_an_interruption(operations: list[object], recent: int) -> None:
    """At any time, a reader gets each message, or a later interruption of its peer, or PositionExpired."""

    async def run(path: Path) -> None:
        store = SqliteStore(path)
        retention = Retention(1e9, 300_000)

        async def look(wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
            return store.read(wanted, after, until, min(limit, 20), max_size)

        feed = Feed(look, recent * 200_000, heartbeat=0)
        feed.open(store.positions, store.held())
        subscribers: list[tuple[int, list[Event]]] = []
        subscriptions = []
        expired: set[int] = set()
        committed: list[Event] = []

        async def advance(index: int) -> None:
            try:
                subscribers[index][1].extend((await anext(subscriptions[index])).events)
            except PositionExpired:
                expired.add(index)

        number, evicted = 0, list[Evicted]()
        for operation in [*operations, "subscribe"]:
            if isinstance(operation, tuple):
                peer_id, count, size = operation
                stored = store.append(of(peer_id, number, number + count - 1, size))
                committed += stored.events
                feed.publish(stored)
                number += count
            elif operation == "clear":
                while store.prune(retention, 1, 50) or (evicted := store.evict(retention, 50)):
                    feed.forget(store.held().floor)
                    for one in evicted:
                        feed.evict(one)
                    evicted = []
                assert store.held().size <= 300_000
            elif operation == "subscribe":
                subscriptions.append(feed.subscribe(EVERYTHING, Start.BEGINNING))
                subscribers.append((feed.floor, []))
            else:
                for index in range(len(subscriptions)):
                    await advance(index)
        for index, subscription in enumerate(subscriptions):
            while index not in expired and store.positions.sequence(subscription.position) < feed.latest:
                await advance(index)
        for index, (start, got) in enumerate(subscribers):
            end = store.positions.sequence(subscriptions[index].position)
            assert sequences(got) == sorted(set(sequences(got)))
            positions = {one.position for one in got if one.arrival.message}
            for event in committed:
                if start < sequences([event])[0] <= end and event.position not in positions:
                    assert index in expired or any(
                        one.arrival.kind is Kind.INTERRUPTION
                        and one.arrival.peer_id == event.arrival.peer_id
                        and sequences([one]) >= sequences([event])
                        for one in got
                    )
        store.close()

    with fast_directory() as directory:
        asyncio.run(run(directory / "inbox.db"))
