"""What each caller may do, and what is remembered of runes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access import runes
from custommsg_server.access.accounts import Accounts, CallerAccount, CallerLimits
from custommsg_server.access.runes import MAX_STRANGERS, VERDICT_TTL, Rune, RunePermit, Runes
from custommsg_server.core.limits import Rate
from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_testing.devnode.rune import Alternative
from custommsg_testing.devnode.rune import Rune as MadeRune
from support import nodes
from support.callers import NoRecord
from support.doors import Certificates, until_serving
from support.gateways import gateway
from support.keys import node_id
from support.standin import StandIn

NOW = 1000.0


class Clock:
    """Time, as a test says it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def made(*restrictions: str, number: int = 7) -> str:
    """Make a rune of nobody."""
    parts = [(Alternative("", "=", str(number)),), *((Alternative.parse(one),) for one in restrictions)]
    return MadeRune.derive(b"secret", parts).encode()


def reason_of(error: pytest.ExceptionInfo[RelayError]) -> tuple[Reason, str]:
    """Return the reason and the limit."""
    return error.value.reason, error.value.metadata.get("limit", "")


def test_calls_at_once_are_bounded_by_caller() -> None:
    """One that has many does not keep another out; what has ended counts no more."""
    callers = Accounts(CallerLimits(calls=2))
    callers.begin("a")
    callers.begin("a")
    with pytest.raises(RelayError) as refused:
        callers.begin("a")
    assert reason_of(refused) == (Reason.OVERLOADED, "caller_calls")
    callers.begin("b")
    callers.end("a")
    callers.begin("a")


def test_rates_are_bounded_by_caller() -> None:
    """Messages and bytes; one that waits may go on; OVERLOADED says when."""
    clock = Clock()
    accounts = Accounts(CallerLimits(rate=Rate(messages_per_s=8, bytes_per_s=1000, burst=1.0)), clock)
    a, b = CallerAccount(accounts, "a", "a"), CallerAccount(accounts, "b", "b")
    for _ in range(9):
        a.take(1, 1)
    with pytest.raises(RelayError) as refused:
        a.take(1, 1)
    assert reason_of(refused) == (Reason.OVERLOADED, "caller_rate")
    assert refused.value.retry_after == pytest.approx(1 / 8)
    b.take(1, 5000)
    assert b.reserve(1, 1) == pytest.approx(4.0)
    clock.now += 0.2
    a.take(1, 1)


async def test_narrowed_copies_of_one_rune_are_counted_together() -> None:
    """Once the node says that a copy is valid, its call counts under the id that all copies share."""
    accounts, runes_ = Accounts(CallerLimits(calls=2)), Runes(Node())
    refusals = []
    for number in range(3):
        rune = Rune(made(f"pnamemsg^{number:04x}"))
        account = CallerAccount(accounts, f"rune:{rune.id}", rune.digest.hex())
        accounts.begin(account.counted_as)
        permit = RunePermit(rune, runes_, account, NoRecord())
        [refusal] = await permit.judge([Use("sendcustommsg", {})], 0.0)
        refusals.append(refusal and refusal.metadata["limit"])
        if number == 2:
            accounts.end(account.counted_as)
    assert refusals == [None, None, "caller_calls"]


def test_a_rune_is_known_by_its_id_and_never_shown() -> None:
    """The id that the node gave it is that of all that is derived from it."""
    text = made("method=sendcustommsg", "rate=3", number=12)
    rune = Rune(text)
    assert (rune.id, rune.is_rated) == ("12", True)
    assert text not in repr(rune)
    assert not Rune(made("pnamerate=1")).is_rated


@pytest.mark.parametrize("text", ["", "a b", "é", "AAAA", "A" * 5000, "A" * 44, '"}'])
def test_what_is_no_rune_never_reaches_the_node(text: str) -> None:
    """lightningd would write it to its log, and the quotes into our request."""
    with pytest.raises(RelayError) as refused:
        Rune(text)
    assert refused.value.reason is Reason.NO_CREDENTIAL


class Node:
    """Judges runes as a test says, and counts."""

    def __init__(self, answer: RelayError | None = None) -> None:
        self.answer = answer
        self.asked: list[Use] = []

    async def check_rune(self, rune: str, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        self.asked += uses
        return [self.answer] * len(uses)


async def test_what_a_subscriber_may_see_is_asked_again_after_a_while() -> None:
    """So a rune that was withdrawn is withdrawn."""
    node, clock = Node(), Clock()
    judge, rune, use = Runes(node, clock), Rune(made()), Use("subscribecustommsg", {"type": 1})
    assert await judge.sees(rune, [use, Use("subscribecustommsg", {"type": 2})], 0.0) == [True, True]
    assert await judge.sees(rune, [use], 0.0) == [True]
    assert len(node.asked) == 2
    clock.now += VERDICT_TTL
    node.answer = RelayError(Reason.NO_CREDENTIAL, "withdrawn")
    with pytest.raises(RelayError):
        await judge.sees(rune, [use], 0.0)


async def test_nothing_is_seen_while_nobody_can_say() -> None:
    """The stream ends, and resumes where it stopped: neither shown nor skipped."""
    judge = Runes(Node(RelayError(Reason.NODE_UNAVAILABLE, "away")), Clock())
    with pytest.raises(RelayError):
        await judge.sees(Rune(made()), [Use("subscribecustommsg", {})], 0.0)


async def test_each_send_is_judged_anew() -> None:
    """A rate counts each."""
    node = Node()
    judge, rune = Runes(node), Rune(made())
    for _ in range(3):
        await judge.judge(rune, [Use("sendcustommsg", {})], 0.0)
    assert len(node.asked) == 3


async def test_strangers_cannot_fill_the_nodes_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound they wait outside, while those who were let in before are served."""
    node = Node()
    judge, known = Runes(node), Rune(made(number=1))
    await judge.judge(known, [Use("getinfo", {})], 0.0)
    monkeypatch.setattr(runes, "MAX_STRANGERS", 0)
    [refusal] = await judge.judge(Rune(made(number=2)), [Use("getinfo", {})], 0.0)
    assert refusal is not None
    assert refusal.metadata == {"limit": "unknown_runes"}
    assert await judge.judge(known, [Use("getinfo", {})], 0.0) == [None]
    assert MAX_STRANGERS > 0


async def test_a_caller_beyond_its_rate_is_told_when_to_come_back(node: StandIn, tmp_path: Path) -> None:
    """By the name in its certificate."""
    certificates = Certificates(tmp_path)
    settings = certificates.settings(True) | {"require": "client-cert", "caller_messages_per_s": 1.0}
    async with (
        gateway(node.rpc_file, receive=False, insecure=False, **settings) as address,
        grpc.aio.secure_channel(address, certificates.client("right")) as channel,
    ):
        await until_serving(channel)
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))
        codes = set()
        for _ in range(4):
            try:
                await stub.SendCustomMsg(request)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(node.sent()) == 2


async def test_a_made_up_rune_asks_one_question_however_much_it_wants() -> None:
    """So that a stranger cannot fill the queue to the node; one that turns out to be valid has the rest asked."""
    asked: list[int] = []

    class Node:
        async def check_rune(
            self, rune: str, uses: Sequence[Use], deadline: float
        ) -> list[RelayError | None]:
            asked.append(len(uses))
            return [answer] * len(uses)

    uses = [Use("sendcustommsg", {"node_id": "02", "msg": str(number)}) for number in range(500)]
    answer: RelayError | None = RelayError(Reason.NO_CREDENTIAL, "not ours")
    assert await Runes(Node()).judge(Rune(made()), uses, NOW) == [answer] * 500
    assert asked == [1]
    answer = None
    assert await Runes(Node()).judge(Rune(made()), uses, NOW) == [None] * 500
    assert asked == [1, 1, 499]


async def test_a_stream_with_a_made_up_rune_ends_before_its_messages_are_read(
    embedded: nodes.Node, short_path: Path
) -> None:
    """Even if none of them could be sent, so that there is nothing to ask the node about."""
    async with (
        gateway(embedded.rpc_file, insecure=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await until_serving(channel)
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        call = stub.SendCustomMsgStream(metadata=(("rune", made()),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
