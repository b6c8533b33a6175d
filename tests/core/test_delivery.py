"""Sending from the outbox, over a stand-in for lightningd that loses, refuses and waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from custommsg_server.core.delivery import Delivery
from custommsg_server.core.limits import PeerLimits, Rate
from custommsg_server.core.once import SENT_BEFORE, Once
from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import Reason, RelayError, no_credential, not_permitted, not_sent
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.outbox import Draft, State
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.lightningd.link import LinkOptions
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import Outbound
from custommsg_server.outbox.sqlite.outbox import SqliteOutbox
from support.memory_inbox import Log, MemoryInbox
from support.outboxes import ALICE, BOB, Opener, draft, ids_of, number_in, state_of
from support.standin import Connection, Request, StandIn


class Judging:
    """Judges as a test says."""

    def __init__(self) -> None:
        self.answers: dict[str, RelayError] = {}
        self.asked: list[tuple[str, Use]] = []

    async def judge_later(
        self, credential: str, uses: Sequence[Use], deadline: float
    ) -> list[RelayError | None]:
        self.asked += [(credential, use) for use in uses]
        return [self.answers.get(credential)] * len(uses)


class Bench:
    """A delivery and all that it works with."""

    def __init__(self, node: StandIn, outbox: SqliteOutbox, opener: Opener) -> None:
        self.node = node
        self.outbox = outbox
        self.opener = opener
        self.log = Log("inbox")
        self.inbox = MemoryInbox(self.log)
        self.judge = Judging()
        self.link = Lightningd(node.rpc_file, LinkOptions(probe_interval=0.2, backoff_min=0.01))
        self.limits = PeerLimits(Rate())
        self.delivery = Delivery(
            outbox, self.link, self.limits, self.judge, self.inbox, lambda: True, look_interval=0.05
        )

        self.connected: set[bytes] = set()
        node.on_listpeers = self._list_peers

    async def _list_peers(self, connection: Connection, request: Request) -> None:
        peers = [{"id": one.hex(), "connected": True, "netaddr": []} for one in self.connected]
        connection.reply(request, {"peers": peers})

    def connects(self, peer_id: bytes, kind: Kind = Kind.CONNECTED) -> None:
        """Tell of a connect, as lightningd does."""
        (self.connected.add if kind is Kind.CONNECTED else self.connected.discard)(peer_id)
        self.delivery.peers_changed([Arrival(kind, 1, peer_id)])

    async def until(self, entry_id: str, state: State) -> None:
        """Wait until an entry is in a state."""
        async with asyncio.timeout(20):
            while await state_of(self.outbox, entry_id) is not state:
                await asyncio.sleep(0.01)

    def sent(self) -> list[int]:
        """Return the numbers of the messages that were written to the node, in order."""
        return [number_in(bytes.fromhex(one["params"]["msg"])) for one in self.node.sent()]


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    """Run the link and the delivery."""
    tasks = [asyncio.create_task(bench.link.run()), asyncio.create_task(bench.delivery.run())]
    up = asyncio.Event()
    bench.link.watch(lambda is_up: up.set() if is_up else None)
    try:
        await up.wait()
        yield
    finally:
        await bench.delivery.stop(5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def bench(node: StandIn, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench whose delivery does not run yet."""
    opener = Opener(tmp_path / "outbox.sqlite3")
    async with AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(opener.outbox())
        yield Bench(node, outbox, opener)


async def test_messages_are_sent_when_the_peer_connects_and_not_before(bench: Bench) -> None:
    """In order; those of others wait on."""
    ids = await ids_of(bench.outbox, *(draft(n) for n in range(40)), draft(99, BOB))
    async with running(bench):
        bench.connects(ALICE)
        await bench.until(ids[39], State.SENT)
        assert bench.sent() == list(range(40))
        assert await state_of(bench.outbox, ids[40]) is State.WAITING_FOR_PEER
        bench.connects(BOB)
        bench.connects(BOB, Kind.DISCONNECTED)
        bench.connects(BOB)
        await bench.until(ids[40], State.SENT)


async def test_what_was_left_from_before_is_sent_after_a_look_at_the_peers(bench: Bench) -> None:
    """Nobody tells that a peer is connected: the node's list does."""
    bench.connected.add(ALICE)
    [entry_id] = await ids_of(bench.outbox, draft(1))
    async with running(bench):
        await bench.until(entry_id, State.SENT)


@pytest.mark.parametrize("at_least_once", [False, True])
async def test_a_connection_that_breaks_ends_in_unknown_or_in_another_attempt(
    bench: Bench, at_least_once: bool
) -> None:
    """At most once, it is not sent again; the next ones are. At least once, it is."""
    count = 0

    async def breaks(connection: Connection, request: Request) -> None:
        nonlocal count
        count += 1
        if count == 2:
            connection.close()
        else:
            connection.reply(request, {"status": "queued"})

    bench.node.on_send = breaks
    ids = await ids_of(bench.outbox, *(draft(n, at_least_once=at_least_once) for n in range(5)))
    async with running(bench):
        bench.connects(ALICE)
        await bench.until(ids[4], State.SENT)
        entry = await bench.outbox.find("", entry_id=ids[1])
        assert entry is not None
        if at_least_once:
            assert bench.sent() == [0, 1, 1, 2, 3, 4]
            assert entry.state is State.SENT
            assert entry.attempts >= 2
        else:
            assert bench.sent() == [0, 1, 2, 3, 4]
            assert (entry.state, entry.reason, entry.attempts) == (State.UNKNOWN, "OUTCOME_UNKNOWN", 1)


async def test_a_peer_that_leaves_in_between_gets_the_rest_later_in_order(bench: Bench) -> None:
    """Nothing after the refused message is sent before it."""
    is_there = True

    async def leaves(connection: Connection, request: Request) -> None:
        nonlocal is_there
        if number_in(bytes.fromhex(request["params"]["msg"])) == 3 and is_there:
            is_there = False
            connection.error(request, -32600, "Peer is not connected")
        else:
            connection.reply(request, {"status": "queued"})

    bench.node.on_send = leaves
    ids = await ids_of(bench.outbox, *(draft(n) for n in range(6)))
    async with running(bench):
        bench.connects(ALICE)
        await bench.node.wait_sent(4)
        await bench.until(ids[3], State.WAITING_FOR_PEER)
        assert bench.sent() == [0, 1, 2, 3]
        bench.connects(ALICE)
        await bench.until(ids[5], State.SENT)
        assert bench.sent() == [0, 1, 2, 3, 3, 4, 5]


async def test_what_the_node_refuses_fails_and_the_next_is_sent(bench: Bench) -> None:
    """With the reason in the entry."""

    async def refuses(connection: Connection, request: Request) -> None:
        if number_in(bytes.fromhex(request["params"]["msg"])) == 0:
            connection.error(request, -5, "no")
        else:
            connection.reply(request, {"status": "queued"})

    bench.node.on_send = refuses
    ids = await ids_of(bench.outbox, draft(0), draft(1))
    async with running(bench):
        bench.connects(ALICE)
        await bench.until(ids[1], State.SENT)
        entry = await bench.outbox.find("", entry_id=ids[0])
        assert entry is not None
        assert (entry.state, entry.reason) == (State.FAILED, "NODE_ERROR")


@pytest.mark.parametrize("refusal", [not_permitted("no"), no_credential("blacklisted")])
async def test_a_withdrawn_credential_fails_its_messages(bench: Bench, refusal: RelayError) -> None:
    """With NOT_PERMITTED, and nothing is sent; those of others are."""
    [withdrawn] = await ids_of(bench.outbox, draft(1), credential="withdrawn")
    [valid] = await ids_of(bench.outbox, draft(2), credential="valid")
    bench.judge.answers["withdrawn"] = refusal
    async with running(bench):
        bench.connects(ALICE)
        await bench.until(valid, State.SENT)
        entry = await bench.outbox.find("", entry_id=withdrawn)
        assert entry is not None
        assert (entry.state, entry.reason, entry.attempts) == (State.FAILED, "NOT_PERMITTED", 0)
        assert bench.sent() == [2]
    [(credential, use), _] = bench.judge.asked
    assert credential == "withdrawn"
    assert (use.method, use.params["node_id"]) == ("enqueuecustommsg", ALICE.hex())


async def test_a_credential_that_cannot_be_judged_now_waits(bench: Bench) -> None:
    """Nothing is sent unjudged, and nothing fails for that."""
    [entry_id] = await ids_of(bench.outbox, draft(1))
    bench.judge.answers["c"] = not_sent()
    async with running(bench):
        bench.connects(ALICE)
        async with asyncio.timeout(10):
            while not bench.judge.asked:
                await asyncio.sleep(0.01)
        assert await state_of(bench.outbox, entry_id) is State.WAITING_FOR_PEER
        bench.judge.answers.clear()
        await bench.until(entry_id, State.SENT)


async def test_a_disk_that_is_full_for_a_while_loses_no_outcome(bench: Bench) -> None:
    """The outcome is stored when there is room; the message is sent once."""
    assert bench.opener.store is not None
    store = bench.opener.store

    async def fills(connection: Connection, request: Request) -> None:
        store.fails = "the disk is full"
        connection.reply(request, {"status": "queued"})

    bench.node.on_send = fills
    [entry_id] = await ids_of(bench.outbox, draft(1))
    async with running(bench):
        bench.connects(ALICE)
        await bench.node.wait_sent(1)
        async with asyncio.timeout(10):
            while bench.outbox.error is None:
                await asyncio.sleep(0.01)
        assert await state_of(bench.outbox, entry_id) is State.SENDING
        store.fails = None
        await bench.until(entry_id, State.SENT)
        assert bench.sent() == [1]


async def test_what_could_not_be_begun_does_not_count_for_the_peers_limits(bench: Bench) -> None:
    """Otherwise each try while the disk is full would delay the message further."""
    assert bench.opener.store is not None
    store = bench.opener.store
    await ids_of(bench.outbox, draft(1))
    bench.limits.set(Rate(messages_per_s=0.01))
    async with running(bench):
        store.fails = "the disk is full"
        bench.connects(ALICE)
        async with asyncio.timeout(10):
            while bench.outbox.error is None or bench.delivery._busy:
                await asyncio.sleep(0.01)
        assert bench.limits.reserve([Outbound(NodeId(ALICE), b"\x9c\x41")]) == 0
    assert bench.sent() == []


async def test_each_ending_is_told_to_the_inbox_once_it_works(bench: Bench) -> None:
    """In order, with our node's id, also when the inbox could not store at first."""
    bench.log.fails = "no room"
    ids = await ids_of(bench.outbox, draft(1, key="k"), draft(2))
    async with running(bench):
        bench.connects(ALICE)
        await bench.until(ids[1], State.SENT)
        bench.log.fails = None
        async with asyncio.timeout(20):
            while len(bench.log.events) < 2 or await bench.outbox.endings(1):
                await asyncio.sleep(0.01)
    told = [event.arrival for _, event in bench.log.events if event.arrival.kind is Kind.OUTBOX]
    assert [one.id for one in told] == [f"outbox/{one}" for one in ids]
    assert told[0].node_id == bench.link.info.node_id if bench.link.info else False
    assert bench.delivery.ended["SENT"] == 2


async def test_stopping_waits_for_what_is_being_sent(bench: Bench) -> None:
    """Nothing is left SENDING by an ordinary stop."""
    ids = await ids_of(bench.outbox, *(draft(n) for n in range(200)))
    async with running(bench):
        bench.connects(ALICE)
        await bench.node.wait_sent(20)
    states = {await state_of(bench.outbox, one) for one in ids}
    assert states == {State.SENT, State.WAITING_FOR_PEER}
    assert bench.sent() == list(range(len(bench.sent())))


# Keys of direct sends


def outbound(number: int) -> Outbound:
    """Make a message that holds a number."""
    made: Draft = draft(number)
    return Outbound(made.peer_id, made.message)


async def test_a_retry_after_an_unknown_outcome_sends_nothing(bench: Bench) -> None:
    """It learns that nothing more is known; after a sent one, that it was sent."""
    once, written = Once(bench.outbox), []

    async def send(batch: Sequence[Outbound]) -> list[str | RelayError]:
        written.extend(number_in(one.message) for one in batch)
        return [
            "queued" if number_in(one.message) else RelayError(Reason.OUTCOME_UNKNOWN, "") for one in batch
        ]

    batch, keys = [outbound(0), outbound(1), outbound(2)], ["a", "b", ""]
    first = await once.send("shop", batch, keys, send)
    assert [one if isinstance(one, str) else one.reason for one in first] == [
        Reason.OUTCOME_UNKNOWN,
        "queued",
        "queued",
    ]
    second = await once.send("shop", batch, keys, send)
    assert [one if isinstance(one, str) else one.reason for one in second] == [
        Reason.OUTCOME_UNKNOWN,
        SENT_BEFORE,
        "queued",
    ]
    assert written == [0, 1, 2, 2]
    assert await once.send("other", batch[1:2], ["b"], send) == ["queued"], "a key is the caller's own"


async def test_who_leaves_in_the_middle_learns_the_outcome_with_the_key(bench: Bench) -> None:
    """The call is cancelled; the message is sent all the same, once, and the retry says so."""
    once, may_end, begun = Once(bench.outbox), asyncio.Event(), asyncio.Event()
    written: list[Outbound] = []

    async def send(batch: Sequence[Outbound]) -> list[str | RelayError]:
        written.extend(batch)
        begun.set()
        await may_end.wait()
        return ["queued"] * len(batch)

    call = asyncio.create_task(once.send("shop", [outbound(1)], ["k"], send))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    retry = asyncio.create_task(once.send("shop", [outbound(1)], ["k"], send))
    [other] = await once.send("shop", [outbound(2)], ["k"], send)
    assert isinstance(other, RelayError)
    assert other.reason is Reason.IDEMPOTENCY_KEY_REUSED
    may_end.set()
    assert await retry == ["queued"]
    assert await once.send("shop", [outbound(1)], ["k"], send) == [SENT_BEFORE]
    assert len(written) == 1
    await once.finish(5)


async def test_without_a_disk_nothing_with_a_key_is_sent(bench: Bench) -> None:
    """Nothing could be remembered; what has no key is sent."""
    assert bench.opener.store is not None
    bench.opener.store.fails = "the disk is full"
    written: list[Outbound] = []

    async def send(batch: Sequence[Outbound]) -> list[str | RelayError]:
        written.extend(batch)
        return ["queued"] * len(batch)

    with_key, without = await Once(bench.outbox).send("shop", [outbound(1), outbound(2)], ["k", ""], send)
    assert isinstance(with_key, RelayError)
    assert with_key.reason is Reason.OUTBOX_UNAVAILABLE
    assert without == "queued"
    assert [number_in(one.message) for one in written] == [2]
