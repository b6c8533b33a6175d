"""The way of lightningd's messages into the inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from custommsg_server.core.intake import MAX_FAVORED, WAIT, Intake, keep_more_of_channels
from custommsg_server.core.limits import Rate
from custommsg_server.domain.errors import RelayError, overloaded
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.port import Inbox, InboxError, Position
from custommsg_server.node.port import Peer
from support.inboxes import ALICE, BOB, OURS, arrival, some


class Pending:
    """An inbox whose appends end when the test asks for it."""

    def __init__(self) -> None:
        self.appended: list[list[Arrival]] = []
        self.futures: list[asyncio.Future[Sequence[Position]]] = []
        self.error: str | None = None
        self.watcher: Callable[[str | None], None] = lambda _: None

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        self.watcher = watcher
        watcher(self.error)

    def fail(self, error: str | None) -> None:
        """Fail from now on, or work again."""
        self.error = error
        self.watcher(error)

    async def ends(self, number: int, error: Exception | None = None) -> None:
        """Wait for an append, counted from 0, and end it, maybe with an error."""
        while len(self.futures) <= number:
            await asyncio.sleep(0)
        if error is None:
            self.futures[number].set_result([])
        else:
            self.futures[number].set_exception(error)

    async def until(self, count: int) -> None:
        """Wait for this number of appends."""
        while len(self.appended) < count:
            await asyncio.sleep(0)

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[Sequence[Position]]:
        self.appended.append(list(arrivals))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


class Watcher:
    """Counts how often lightningd was answered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def handed_over(self, seconds: float) -> None:
        self.seconds.append(seconds)


def intake(inbox: Pending, **options: Any) -> Intake:
    return Intake(cast("Inbox", inbox), TypeSet([range(37913, 37914)]), lambda: OURS, **options)


def put(taker: Intake, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
    """Append arrivals; the future returns the answer."""
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    taker.append(arrivals, answered.set_result)
    return answered


async def settle() -> None:
    """Run all tasks that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_wanted_types_are_taken_and_the_others_counted() -> None:
    """Messages of other types are answered and dropped."""
    taker = intake(Pending())
    assert taker.takes(37913)
    assert not taker.takes(37914)
    assert not taker.takes(7)
    assert taker.ignored == 2


async def test_arrivals_get_the_id_of_our_node() -> None:
    """The id that is known when they arrive; an arrival with an id keeps it."""
    inbox, ids = Pending(), [b"", OURS]
    taker = Intake(cast("Inbox", inbox), TypeSet([range(65_536)]), lambda: ids[0])
    one = Arrival(Kind.MESSAGE, 5, BOB, b"\x94\x19x", 0, b"", "name")
    interruption = Arrival(Kind.INTERRUPTION, 6, lost=7)
    put(taker, [one, interruption])
    inbox.futures[0].set_result([])
    await settle()
    ids.pop(0)
    put(taker, [one, interruption, one._replace(node_id=BOB)])
    assert inbox.appended == [
        [one, interruption],
        [one._replace(node_id=OURS), interruption._replace(node_id=OURS), one._replace(node_id=BOB)],
    ]


async def test_what_becomes_of_messages_is_counted() -> None:
    """Stored or lost; connects and interruptions are not counted."""
    inbox, watcher = Pending(), Watcher()
    taker = intake(inbox, watcher=watcher)
    stored = put(taker, [arrival(1), arrival(2), arrival(kind=Kind.CONNECTED)])
    assert (taker.stored, taker.lost) == (0, 0)
    inbox.futures[0].set_result([])
    assert await stored is True
    lost = put(taker, [arrival(3)])
    await inbox.ends(1, InboxError("no room"))
    assert await lost is False
    silent = put(taker, [arrival(kind=Kind.CONNECTED)])
    await inbox.ends(2)
    assert await silent is True
    assert (taker.stored, taker.lost, taker.waiting) == (2, 1, 0)
    assert len(watcher.seconds) == 2
    assert all(seconds >= 0 for seconds in watcher.seconds)


async def test_arrivals_during_a_commit_are_stored_together() -> None:
    """In one commit; the first message does not wait."""
    inbox, watcher = Pending(), Watcher()
    taker = intake(inbox, watcher=watcher)
    first = put(taker, [arrival(1)])
    later = [put(taker, [arrival(number)]) for number in range(2, 10)]
    assert [len(some) for some in inbox.appended] == [1]
    inbox.futures[0].set_result([])
    assert await first is True
    await inbox.until(2)
    assert [len(some) for some in inbox.appended] == [1, 8]
    assert inbox.appended[1] == [arrival(number) for number in range(2, 10)]
    assert not any(one.done() for one in later)
    inbox.futures[1].set_result([])
    assert await asyncio.gather(*later) == [True] * 8
    assert (taker.stored, taker.waiting, len(watcher.seconds)) == (9, 0, 2)


async def test_not_too_much_is_collected() -> None:
    """More is passed to the inbox, which decides how much one commit stores."""
    inbox = Pending()
    taker = intake(inbox)
    kept = [put(taker, [arrival(size=60_000)]) for _ in range(40)]
    assert len(inbox.appended) == 3
    assert 0 < taker.waiting < 40 * 61_000
    for number in range(4):
        await inbox.ends(number)
    assert await asyncio.gather(*kept) == [True] * 40
    assert taker.stored == 40
    assert taker.waiting == 0


async def test_nothing_is_collected_while_the_inbox_fails() -> None:
    """Then the inbox limits what waits, and counts what is lost."""
    inbox = Pending()
    taker = intake(inbox)
    for number in range(3):
        put(taker, [arrival(number)])
    inbox.fail("no room")
    assert [len(some) for some in inbox.appended] == [1, 2]
    put(taker, [arrival(3)])
    put(taker, [arrival(4)])
    assert [len(some) for some in inbox.appended] == [1, 2, 1, 1]


async def test_collected_arrivals_are_stored_when_the_gateway_ends() -> None:
    """They are passed to the inbox, which stores them before it closes."""
    inbox = Pending()
    taker = intake(inbox)
    put(taker, [arrival(1)])
    put(taker, [arrival(2)])
    taker.close()
    assert inbox.appended == [[arrival(1)], [arrival(2)]]


async def test_it_is_full_until_enough_was_stored() -> None:
    """The channel waits, and is woken when there is space; further arrivals are accepted."""
    inbox = Pending()
    taker = intake(inbox, max_waiting=5000)
    assert not taker.is_full
    await taker.has_room()
    for _ in range(4):
        put(taker, [arrival(size=1000)])
    assert taker.is_full
    assert 4000 < taker.waiting < 8000
    room = asyncio.create_task(taker.has_room())
    put(taker, [arrival()])
    await settle()
    assert not room.done()
    inbox.futures[0].set_exception(InboxError("no room"))
    await room
    assert not taker.is_full
    await inbox.until(2)
    assert [len(some) for some in inbox.appended] == [1, 4]


async def test_it_is_not_full_while_the_inbox_fails() -> None:
    """Then the inbox itself limits what waits; lightningd must not wait for a broken disk."""
    inbox = Pending()
    taker = intake(inbox, max_waiting=1000)
    put(taker, [arrival(size=1000)])
    assert taker.is_full
    room = asyncio.create_task(taker.has_room())
    inbox.fail("no room")
    await room
    assert not taker.is_full
    put(taker, [arrival(size=1000)])
    assert not taker.is_full
    inbox.fail(None)
    assert taker.is_full
    room = asyncio.create_task(taker.has_room())
    for future in inbox.futures:
        future.set_result([])
    await room


async def test_after_an_answer_for_several_as_many_are_awaited() -> None:
    """lightningd brings the next message of each peer; a peer without one delays the others only shortly."""
    inbox = Pending()
    taker = intake(inbox)
    put(taker, some(1, 3))
    inbox.futures[0].set_result([])
    await settle()
    put(taker, some(4, 5))
    assert len(inbox.appended) == 1
    put(taker, some(6, 6))
    assert inbox.appended[1:] == [some(4, 6)]
    inbox.futures[1].set_result([])
    await settle()
    put(taker, some(7, 7))
    assert len(inbox.appended) == 2
    while len(inbox.appended) < 3:
        await asyncio.sleep(0)
    assert inbox.appended[2:] == [some(7, 7)]


async def test_a_single_peer_does_not_wait() -> None:
    """Nor does a message that comes later after the last answer."""
    inbox = Pending()
    taker = intake(inbox)
    for number in range(5):
        put(taker, some(number, number))
        assert len(inbox.appended) == number + 1
        inbox.futures[number].set_result([])
        await settle()
    put(taker, some(6, 9))
    inbox.futures[5].set_result([])
    await asyncio.sleep(2 * WAIT)
    put(taker, some(10, 10))
    assert len(inbox.appended) == 7


async def test_an_answer_that_fails_does_not_stop_the_others() -> None:
    """It would be a bug, which the log reports; lightningd gets all other answers."""
    inbox = Pending()
    taker = intake(inbox)
    put(taker, some(1, 1))
    taker.append(some(2, 2), lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    last = put(taker, some(3, 3))
    with structlog.testing.capture_logs() as logs:
        await inbox.ends(0)
        await inbox.ends(1)
        assert await last is True
    assert [line["event"] for line in logs] == ["an answer was not sent because of a bug; please report it"]
    assert taker.stored == 3


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_bug_in_the_engine_is_a_loss_that_the_log_tells(cancelled: bool) -> None:
    """The future ends nevertheless."""
    inbox = Pending()
    taker = intake(inbox)
    kept = put(taker, [arrival(1)])
    with structlog.testing.capture_logs() as logs:
        if cancelled:
            inbox.futures[0].cancel()
        else:
            inbox.futures[0].set_exception(ZeroDivisionError())
        assert await kept is False
    assert taker.lost == 1
    assert [line["event"] for line in logs] == ["unexpected error while storing"]


CAROL = b"\x02" + b"c" * 32
TWO = Rate(messages_per_s=1, burst=1)
"""A burst of two messages, then one a second."""


def lost_of(arrivals: Sequence[Arrival]) -> dict[bytes, int]:
    """Return the numbers of lost messages in the interruptions, by peer."""
    return {one.peer_id: one.lost for one in arrivals if one.kind is Kind.INTERRUPTION}


async def test_a_peer_over_its_budget_is_not_stored_and_no_other_is_touched() -> None:
    """Refused messages are answered at once and counted; one interruption of the peer has the number."""
    inbox = Pending()
    taker = intake(inbox, rate=TWO, tell_after=0.01)
    taken = [put(taker, [arrival(number), arrival(number, peer_id=BOB)]) for number in range(3)]
    assert [len(some) for some in inbox.appended] == [2]
    only = put(taker, [arrival(9, peer_id=BOB)])
    assert await only is False
    assert taker.refused == 3
    for number in range(3, 6):
        put(taker, [arrival(number, peer_id=CAROL)])
    inbox.futures[0].set_result([])
    assert await taken[0] is True
    await inbox.until(2)
    assert [one.peer_id for one in inbox.appended[1]] == [ALICE, BOB, CAROL, CAROL]
    inbox.futures[1].set_result([])
    while len(inbox.appended) < 3:
        await asyncio.sleep(0.001)
    assert lost_of(inbox.appended[2]) == {ALICE: 1, BOB: 2, CAROL: 1}


async def test_a_batch_that_a_peer_may_send_is_not_cut() -> None:
    """A peer within its budget may exceed it with one batch; then it has to wait longer."""
    inbox = Pending()
    taker = intake(inbox, rate=TWO)
    put(taker, [arrival(number) for number in range(50)])
    put(taker, [arrival(99), arrival(99, kind=Kind.DISCONNECTED)])
    assert len(inbox.appended[0]) == 50
    taker.close()
    assert [one.kind for one in inbox.appended[-1]] == [Kind.DISCONNECTED, Kind.INTERRUPTION]
    assert taker.refused == 1


async def test_bytes_count_as_well_as_messages() -> None:
    """Including the framing of each message."""
    inbox = Pending()
    taker = intake(inbox, rate=Rate(bytes_per_s=1000, burst=1))
    for _ in range(4):
        put(taker, [arrival(size=470)])
    assert taker.refused == 2
    taker.set(Rate())
    put(taker, [arrival(size=470)])
    assert taker.refused == 2, "with no limit all are stored"


async def test_what_was_refused_is_told_at_most_once_in_a_while() -> None:
    """However many are refused, and also if the gateway stops before that."""
    inbox = Pending()
    taker = intake(inbox, rate=Rate(messages_per_s=0.001, burst=1), tell_after=1e6)
    for number in range(1000):
        put(taker, [arrival(number)])
    assert len(inbox.appended) == 1
    taker.close()
    assert lost_of(inbox.appended[-1]) == {ALICE: 999}
    taker.close()
    assert len(inbox.appended) == 2


class Peers:
    """A node that lists its peers, or fails."""

    def __init__(self, *answers: list[Peer] | RelayError) -> None:
        self.answers = list(answers)

    async def list_peers(self, deadline: float, caller: str) -> list[Peer]:
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, RelayError):
            raise answer
        return answer


async def test_more_is_kept_of_peers_with_channels_as_far_as_the_node_says() -> None:
    """The list is updated; while the node does not answer, the last list stays valid; its length is limited."""
    told: list[set[bytes]] = []
    inbox = SimpleNamespace(keep_more_of=lambda peer_ids: told.append(set(peer_ids)))
    many = [Peer(number.to_bytes(33, "big"), True, "", 1) for number in range(20_000)]
    answers = [Peer(ALICE, True, "", 2), Peer(BOB, True, "", 0)], overloaded("node_queue", "busy", 1.0), many
    asking = asyncio.create_task(keep_more_of_channels(Peers(*answers), cast("Inbox", inbox), interval=0.001))
    while len(told) < 2:
        await asyncio.sleep(0.001)
    asking.cancel()
    assert told[0] == {ALICE}
    assert len(told[1]) == MAX_FAVORED
