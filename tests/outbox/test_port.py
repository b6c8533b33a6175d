"""What the port promises, over the SQLite engine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.outbox import Outcome, State
from custommsg_server.outbox.port import Begun, Enqueued, OutboxError, Wanted
from custommsg_server.outbox.sqlite.outbox import SqliteOutbox
from support.keys import node_id
from support.outboxes import ALICE, BOB, ROOMY, Opener, draft, ids_of, number_in, send_all, state_of, take


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    """Return what opens the outbox of a test."""
    return Opener(tmp_path / "outbox.sqlite3")


@pytest.fixture
async def outbox(opener: Opener) -> AsyncIterator[SqliteOutbox]:
    """Return an open outbox."""
    async with opener.outbox() as outbox:
        yield outbox


def reasons(results: object) -> list[Reason | None]:
    """Return why each was not stored; None: it was."""
    assert isinstance(results, list)
    return [one.reason if isinstance(one, RelayError) else None for one in results]


# Enqueueing and taking


async def test_what_was_enqueued_is_taken_in_order_by_peer(outbox: SqliteOutbox) -> None:
    """However many calls enqueued it, and whatever waits for others."""
    calls = [outbox.enqueue("a", "c", [draft(n, ALICE), draft(n, BOB)]) for n in range(0, 3000, 3)]
    calls += [outbox.enqueue("b", "d", [draft(n, ALICE)]) for n in range(3000, 3010)]
    await asyncio.gather(*calls)
    taken = await take(outbox, ALICE, "", 1 << 20, 1 << 40)
    assert [number_in(one.message) for one in taken] == [*range(0, 3000, 3), *range(3000, 3010)]
    assert {(one.caller, one.credential) for one in taken} == {("a", "c"), ("b", "d")}
    assert len(await take(outbox, BOB, "", 1 << 20, 1 << 40)) == 1000


async def test_what_was_taken_is_not_taken_again(outbox: SqliteOutbox) -> None:
    """It is SENDING until it has an outcome."""
    [first, _] = await ids_of(outbox, draft(1), draft(2))
    [taken] = await take(outbox, ALICE, "", 1, 1 << 20)
    assert taken.entry_id == first
    assert await state_of(outbox, first) is State.SENDING
    assert [number_in(one.message) for one in await take(outbox, ALICE, "", 9, 1 << 20)] == [2]
    assert await take(outbox, ALICE, "", 9, 1 << 20) == []


async def test_a_batch_is_bounded_in_bytes_and_never_empty(outbox: SqliteOutbox) -> None:
    """One that is larger than the bound comes alone."""
    await ids_of(outbox, *(draft(n) for n in range(5)))
    assert len(await take(outbox, ALICE, "", 9, 1)) == 1
    assert len(await take(outbox, ALICE, "", 9, 25)) == 2


async def test_what_was_not_sent_waits_again_at_its_place(outbox: SqliteOutbox) -> None:
    """And what comes after a given entry can be taken alone."""
    [one, two, _] = await ids_of(outbox, *(draft(n) for n in (1, 2, 3)))
    await take(outbox, ALICE, "", 2, 1 << 20)
    await outbox.settle([Outcome(one, State.SENT), Outcome(two, State.WAITING_FOR_PEER)])
    assert [number_in(one.message) for one in await take(outbox, ALICE, "", 1, 1 << 20)] == [2]
    assert [number_in(one.message) for one in await take(outbox, ALICE, two, 1, 1 << 20)] == [3]


async def test_an_entry_says_what_it_is(outbox: SqliteOutbox, opener: Opener) -> None:
    """Every field comes back; the credential does not."""
    given = draft(7, key="k", at_least_once=True, lifetime=60.0)
    [entry_id] = await ids_of(outbox, given, caller="rune:7", credential="secret")
    entry = await outbox.find("", entry_id=entry_id)
    assert entry is not None
    assert (entry.peer_id, entry.message, entry.state) == (ALICE, given.message, State.WAITING_FOR_PEER)
    assert (entry.key, entry.caller, entry.at_least_once, entry.is_direct) == ("k", "rune:7", True, False)
    assert entry.created_ns == entry.changed_ns == opener.clock.wall
    assert entry.expires_ns == opener.clock.wall + 60_000_000_000
    assert entry.attempts == 0
    assert "secret" not in repr(entry)
    opener.clock.passes(1)
    await send_all(outbox, ALICE, State.FAILED, "NODE_ERROR")
    ended = await outbox.find("", entry_id=entry_id)
    assert ended == replace(
        entry, state=State.FAILED, reason="NODE_ERROR", attempts=1, changed_ns=opener.clock.wall
    )


async def test_a_final_state_never_changes(outbox: SqliteOutbox) -> None:
    """A late outcome and a cancellation come too late."""
    [entry_id] = await ids_of(outbox, draft())
    await send_all(outbox, ALICE)
    await outbox.settle([Outcome(entry_id, State.WAITING_FOR_PEER)])
    entry = await outbox.cancel(entry_id)
    assert entry is not None
    assert entry.state is State.SENT


async def test_what_waits_can_be_cancelled_and_what_is_being_sent_cannot(outbox: SqliteOutbox) -> None:
    """The entry that comes back says which of the two it was."""
    [one, two] = await ids_of(outbox, draft(1), draft(2))
    await take(outbox, ALICE, "", 1, 1 << 20)
    states = [entry.state for entry in (await outbox.cancel(one), await outbox.cancel(two)) if entry]
    assert states == [State.SENDING, State.CANCELLED]
    assert await outbox.cancel(two.replace(two[0], "g")) is None
    assert await take(outbox, ALICE, "", 9, 1 << 20) == []


# Keys


async def test_a_key_has_one_entry_of_a_caller(outbox: SqliteOutbox) -> None:
    """In one call, in calls that are under way together, and whatever became of it."""
    first = outbox.enqueue("shop", "c", [draft(1, key="k"), draft(1, key="k"), draft(2)])
    second = outbox.enqueue("shop", "c", [draft(1, key="k")])
    other = outbox.enqueue("other", "c", [draft(1, key="k")])
    [a, again, b] = await first
    [c], [d] = await second, await other
    assert isinstance(a, Enqueued) and isinstance(b, Enqueued) and isinstance(d, Enqueued)  # noqa: PT018
    assert a.is_new
    assert again == c == Enqueued(a.entry_id, State.WAITING_FOR_PEER, False)
    assert len({a.entry_id, b.entry_id, d.entry_id}) == 3
    assert await send_all(outbox, ALICE) == [1, 2, 1]
    [e] = await outbox.enqueue("shop", "c", [draft(1, key="k", lifetime=1)])
    assert e == Enqueued(a.entry_id, State.SENT, False)
    entry = await outbox.find("shop", key="k")
    assert entry is not None
    assert entry.id == a.entry_id
    assert await outbox.find("nobody", key="k") is None


async def test_another_message_under_a_key_is_refused(outbox: SqliteOutbox) -> None:
    """Another payload, another peer; the others of the call are stored."""
    await ids_of(outbox, draft(1, key="k"))
    results = await outbox.enqueue(
        "shop", "c", [draft(2, key="k"), draft(1, BOB, key="k"), draft(3, key="l"), draft(4, key="l")]
    )
    reused = Reason.IDEMPOTENCY_KEY_REUSED
    assert reasons(list(results)) == [reused, reused, None, reused]
    assert await send_all(outbox, ALICE) == [1, 3]


async def test_a_direct_message_is_begun_once(outbox: SqliteOutbox) -> None:
    """The second time it says what is known, until it was not sent: then it may be sent again."""
    [first] = await outbox.begin("shop", [draft(1, key="k")])
    assert isinstance(first, Begun)
    assert (first.is_new, first.entry.state, first.entry.is_direct) == (True, State.SENDING, True)
    [second] = await outbox.begin("shop", [draft(1, key="k")])
    assert isinstance(second, Begun)
    assert (second.is_new, second.entry.id) == (False, first.entry.id)
    await outbox.settle([Outcome(first.entry.id, State.WAITING_FOR_PEER)])
    [third, other] = await outbox.begin("shop", [draft(1, key="k"), draft(2, key="k")])
    assert isinstance(third, Begun)
    assert third.is_new
    assert reasons([other]) == [Reason.IDEMPOTENCY_KEY_REUSED]
    await outbox.settle([Outcome(third.entry.id, State.UNKNOWN, "OUTCOME_UNKNOWN")])
    [fourth] = await outbox.begin("shop", [draft(1, key="k")])
    assert isinstance(fourth, Begun)
    assert (fourth.is_new, fourth.entry.state) == (False, State.UNKNOWN)
    assert await take(outbox, ALICE, "", 9, 1 << 20) == []


async def test_a_key_is_for_queueing_or_for_sending_and_not_for_both(outbox: SqliteOutbox) -> None:
    """An entry of the other kind would be neither sent now nor waited for."""
    await ids_of(outbox, draft(1, key="queued"))
    await outbox.begin("shop", [draft(1, key="sent")])
    assert reasons(list(await outbox.begin("shop", [draft(1, key="queued")]))) == [
        Reason.IDEMPOTENCY_KEY_REUSED
    ]
    assert reasons(list(await outbox.enqueue("shop", "c", [draft(1, key="sent")]))) == [
        Reason.IDEMPOTENCY_KEY_REUSED
    ]


# Bounds


@pytest.mark.parametrize(
    ("bounds", "limit"),
    [
        (replace(ROOMY, peer_entries=2), "outbox_peer_entries"),
        (replace(ROOMY, peer_size=700), "outbox_peer_mb"),
        (replace(ROOMY, caller_entries=2), "outbox_caller_entries"),
        (replace(ROOMY, caller_size=700), "outbox_caller_mb"),
    ],
)
async def test_a_bound_is_held_and_named(opener: Opener, bounds: object, limit: str) -> None:
    """What is too much is refused, one by one; there is room again when something has ended."""
    async with opener.outbox(bounds) as outbox:  # type: ignore[arg-type]
        results = list(await outbox.enqueue("shop", "c", [draft(n) for n in range(3)]))
        assert reasons(results) == [None, None, Reason.OUTBOX_FULL]
        assert isinstance(results[2], RelayError)
        assert results[2].metadata == {"limit": limit}
        assert reasons(list(await outbox.enqueue("other", "c", [draft(9)]))) == [None]
        assert await send_all(outbox, ALICE) == [0, 1, 9]
        assert reasons(list(await outbox.enqueue("shop", "c", [draft(3)]))) == [None]


async def test_the_bound_of_a_peer_leaves_room_for_others(opener: Opener) -> None:
    """One peer that is away for ever does not keep a caller from queueing for others."""
    async with opener.outbox(replace(ROOMY, peer_entries=1)) as outbox:
        results = list(await outbox.enqueue("shop", "c", [draft(1), draft(2), draft(3, BOB)]))
        assert reasons(results) == [None, Reason.OUTBOX_FULL, None]


# Time


async def test_what_is_due_expires(outbox: SqliteOutbox, opener: Opener) -> None:
    """It is not taken from then on; what was being sent is not touched."""
    [short, long, sending] = await ids_of(outbox, draft(1, lifetime=10), draft(2), draft(3, BOB, lifetime=10))
    await take(outbox, BOB, "", 1, 1 << 20)
    opener.clock.passes(11)
    assert [number_in(one.message) for one in await take(outbox, ALICE, "", 9, 1 << 20)] == [2]
    assert await outbox.tidy() is False
    assert [await state_of(outbox, one) for one in (short, long, sending)] == [
        State.EXPIRED,
        State.SENDING,
        State.SENDING,
    ]


async def test_a_wrong_clock_expires_nothing_and_sends_nothing_late(
    outbox: SqliteOutbox, opener: Opener
) -> None:
    """While the clock is a year ahead the entry is not sent; it is when the clock is right again."""
    [entry_id] = await ids_of(outbox, draft(1))
    opener.clock.wall += 365 * 86_400 * 10**9
    await outbox.tidy()
    assert await take(outbox, ALICE, "", 9, 1 << 20) == []
    assert await state_of(outbox, entry_id) is State.WAITING_FOR_PEER
    opener.clock.wall -= 365 * 86_400 * 10**9
    assert await send_all(outbox, ALICE) == [1]


async def test_what_expired_while_the_gateway_was_away_is_not_sent(opener: Opener) -> None:
    """Even before it is found to have expired."""
    async with opener.outbox() as outbox:
        await ids_of(outbox, draft(1, lifetime=3600))
    opener.clock.wall += 7200 * 10**9
    async with opener.outbox() as outbox:
        assert await take(outbox, ALICE, "", 9, 1 << 20) == []


async def test_what_has_ended_is_deleted_after_its_time(opener: Opener) -> None:
    """With its key, and not before it was told."""
    async with opener.outbox(replace(ROOMY, keep_time=60)) as outbox:
        [entry_id, waiting] = await ids_of(outbox, draft(1, key="k"), draft(2, BOB))
        await send_all(outbox, ALICE)
        opener.clock.passes(61)
        await outbox.tidy()
        assert await state_of(outbox, entry_id) is State.SENT
        await outbox.told(1)
        await outbox.tidy()
        assert await state_of(outbox, entry_id) is None
        assert await state_of(outbox, waiting) is State.WAITING_FOR_PEER
        [again] = await ids_of(outbox, draft(9, key="k"))
        assert again != entry_id


async def test_each_caller_keeps_its_own_last_ones(opener: Opener) -> None:
    """One that sends very much pushes out its own entries, and nobody else's."""
    async with opener.outbox(replace(ROOMY, keep_entries=3)) as outbox:
        [kept] = await ids_of(outbox, draft(1), caller="quiet")
        many = await ids_of(outbox, *(draft(n) for n in range(5)), caller="loud")
        await outbox.begin("loud", [draft(1, key="k")])
        await send_all(outbox, ALICE)
        await outbox.told(100)
        await outbox.tidy()
        states = [await state_of(outbox, one) for one in (kept, *many)]
        assert states == [State.SENT, None, None, *[State.SENT] * 3]


# After a restart


async def test_a_restart_ends_what_was_being_sent(opener: Opener) -> None:
    """At most once: UNKNOWN. At least once: it waits again. The rest waits as before, in order."""
    async with opener.outbox() as outbox:
        ids = await ids_of(
            outbox, draft(1), draft(2, at_least_once=True), draft(3), draft(4, at_least_once=True)
        )
        await outbox.begin("shop", [draft(5, BOB, key="k")])
        await take(outbox, ALICE, "", 2, 1 << 20)
    async with opener.outbox() as outbox:
        states = [await state_of(outbox, one) for one in ids]
        assert states == [State.UNKNOWN, *[State.WAITING_FOR_PEER] * 3]
        assert await send_all(outbox, ALICE) == [2, 3, 4]
        [begun] = await outbox.begin("shop", [draft(5, BOB, key="k")])
        assert isinstance(begun, Begun)
        assert (begun.is_new, begun.entry.state) == (False, State.UNKNOWN)
        last = await outbox.find("", entry_id=ids[1])
        assert last is not None
        assert last.attempts == 2


async def test_an_id_is_never_used_twice_and_not_by_another_outbox(opener: Opener, tmp_path: Path) -> None:
    """Whoever kept an id of an outbox that is gone is not shown another message."""
    async with opener.outbox() as outbox:
        [entry_id] = await ids_of(outbox, draft(1))
    async with Opener(tmp_path / "other.sqlite3").outbox() as other:
        await ids_of(other, draft(2))
        for text in (entry_id, "", "x", "0" * 16 + "-1", entry_id + "0"):
            assert await other.find("", entry_id=text) is None


# Listing and endings


async def test_pages_hold_each_entry_once_in_order(outbox: SqliteOutbox) -> None:
    """With filters and without; the last page says that it is the last."""
    ids = await ids_of(outbox, *(draft(n, BOB if n % 3 == 0 else ALICE) for n in range(50)))
    await take(outbox, BOB, "", 5, 1 << 20)

    async def listed(wanted: Wanted) -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            page = await outbox.page(wanted, after, 7)
            assert len(page.entries) <= 7
            found += [entry.id for entry in page.entries]
            after = page.next
            if not after:
                return found

    assert await listed(Wanted()) == ids
    assert await listed(Wanted(peer_ids=frozenset({BOB}))) == ids[::3]
    assert await listed(Wanted(frozenset({State.SENDING}), frozenset({BOB}))) == ids[::3][:5]
    assert await listed(Wanted(frozenset({State.SENT}))) == []


async def test_endings_are_given_until_they_are_told_and_survive_a_restart(opener: Opener) -> None:
    """In the order in which they happened; what was sent directly has none."""
    async with opener.outbox() as outbox:
        [one, two, three] = await ids_of(outbox, *(draft(n, key=f"k{n}") for n in (1, 2, 3)))
        await outbox.cancel(two)
        await outbox.begin("shop", [draft(1, key="direct")])
        await send_all(outbox, ALICE, State.FAILED, "NODE_ERROR")
        first = await outbox.endings(1)
        assert [(end.entry_id, end.state, end.key, end.message_type) for end in first] == [
            (two, State.CANCELLED, "k2", 40001)
        ]
        await outbox.told(first[0].number)
    async with opener.outbox() as outbox:
        rest = await outbox.endings(9)
        assert [(end.entry_id, end.reason) for end in rest] == [(one, "NODE_ERROR"), (three, "NODE_ERROR")]
        await outbox.told(rest[-1].number)
        assert await outbox.endings(9) == []


async def test_who_is_waited_for_is_known(outbox: SqliteOutbox) -> None:
    """By node id, in pages, until nothing waits for the peer any more."""
    peers = sorted(node_id(n) for n in range(1, 8))
    await ids_of(outbox, *(draft(1, peer) for peer in peers), *(draft(2, peer) for peer in peers))
    first = list(await outbox.waiting_for(b"", 4))
    assert first + list(await outbox.waiting_for(first[-1], 4)) == peers
    await send_all(outbox, peers[0])
    assert list(await outbox.waiting_for(b"", 100)) == peers[1:]


async def test_counts_follow_every_change(outbox: SqliteOutbox, opener: Opener) -> None:
    """What waits, its size, what has ended, and how old the oldest is."""
    assert (await outbox.counts()).oldest_ns == 0
    await ids_of(outbox, draft(1), draft(2, BOB))
    before = opener.clock.wall
    opener.clock.passes(5)
    await ids_of(outbox, draft(3))
    counts = await outbox.counts()
    assert (counts.waiting, counts.waiting_size, counts.ended, counts.oldest_ns) == (3, 930, 0, before)
    await send_all(outbox, ALICE)
    counts = await outbox.counts()
    assert (counts.waiting, counts.waiting_size, counts.ended) == (1, 310, 2)


# Secrets and faults


async def test_a_credential_is_deleted_when_nothing_waits_that_needs_it(
    outbox: SqliteOutbox, opener: Opener
) -> None:
    """And it is in the file once, however many entries have it."""

    def kept() -> list[str]:
        with sqlite3.connect(opener.path) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM credentials")]

    await ids_of(outbox, draft(1), draft(2), credential="secret")
    [other] = await ids_of(outbox, draft(3, BOB), credential="more")
    assert sorted(await asyncio.to_thread(kept)) == ["more", "secret"]
    await send_all(outbox, ALICE)
    await outbox.cancel(other)
    assert await asyncio.to_thread(kept) == []


async def test_a_full_disk_is_an_error_and_nothing_is_stored(outbox: SqliteOutbox, opener: Opener) -> None:
    """What waits for the same commit fails, too; it works again when there is room."""
    assert opener.store is not None
    opener.store.fails = "the disk is full"
    calls = [outbox.enqueue("shop", "c", [draft(n)]) for n in range(3)]
    for call in calls:
        with pytest.raises(OutboxError, match="full"):
            await call
    assert outbox.error == "the disk is full"
    opener.store.fails = None
    await ids_of(outbox, draft(7))
    assert outbox.error is None
    assert await send_all(outbox, ALICE) == [7]


async def test_a_commit_that_may_have_taken_effect_says_so(outbox: SqliteOutbox, opener: Opener) -> None:
    """And the same key tells afterwards."""
    assert opener.store is not None
    opener.store.fails_after_commit = True
    with pytest.raises(OutboxError) as failed:
        await outbox.enqueue("shop", "c", [draft(1, key="k")])
    assert failed.value.is_unknown
    opener.store.fails_after_commit = False
    [again] = await outbox.enqueue("shop", "c", [draft(1, key="k")])
    assert isinstance(again, Enqueued)
    assert not again.is_new


async def test_a_second_gateway_is_kept_away(outbox: SqliteOutbox, opener: Opener) -> None:
    """It says so, and each of its calls fails."""
    async with SqliteOutbox(opener.path, ROOMY) as second:
        assert "another gateway uses it" in str(second.error)
        with pytest.raises(OutboxError, match="another gateway"):
            await second.enqueue("shop", "c", [draft(1)])
        with pytest.raises(OutboxError, match="another gateway"):
            await second.find("", entry_id="x")


async def test_a_file_that_was_removed_is_found_out(outbox: SqliteOutbox, opener: Opener) -> None:
    """What was written there would be gone."""
    opener.path.unlink()
    with pytest.raises(OutboxError, match="removed"):
        await outbox.enqueue("shop", "c", [draft(1)])


async def test_a_file_that_was_truncated_is_found_out(outbox: SqliteOutbox, opener: Opener) -> None:
    """What is written there would damage it further."""
    os.truncate(opener.path, opener.path.stat().st_size // 2)
    with pytest.raises(OutboxError, match="truncated while in use; stop the gateway, move the file away"):
        await outbox.enqueue("shop", "c", [draft(1)])


async def test_a_file_of_a_newer_gateway_is_refused(opener: Opener) -> None:
    """What it has stored there would not be understood."""
    async with opener.outbox():
        pass
    with closing(sqlite3.connect(opener.path)) as file:
        file.execute("PRAGMA user_version = 99")
    async with opener.outbox() as outbox:
        with pytest.raises(OutboxError, match=r"its version is 99, .* run the newer gateway again"):
            await outbox.find("", entry_id="x")


async def test_a_closed_outbox_answers(opener: Opener) -> None:
    """Nobody waits for ever."""
    async with opener.outbox() as outbox:
        pass
    with pytest.raises(OutboxError, match="closed"):
        await outbox.enqueue("shop", "c", [draft(1)])
    with pytest.raises(OutboxError, match="closed"):
        await outbox.page(Wanted(), "", 1)


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """It has messages and credentials."""
    path = tmp_path / "folder" / "outbox.sqlite3"

    async def make() -> None:
        async with SqliteOutbox(path, ROOMY):
            pass

    asyncio.run(make())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
