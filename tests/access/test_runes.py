"""Runes: what the node is asked, and what is judged here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access import runes
from custommsg_server.access.accounts import Accounts, CallerAccount, CallerLimits
from custommsg_server.access.runes import MAX_CONDITIONS, MAX_STRANGERS, Rune, RunePermit, Runes
from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import Reason, RelayError, no_credential, not_permitted, overloaded
from custommsg_server.domain.narrowing import encode
from custommsg_server.domain.rune import Alternative
from custommsg_testing.devnode.rune import derive, parse_condition
from support import nodes
from support.callers import NoRecord
from support.doors import until_serving
from support.gateways import gateway

NOW = 1000.0
SEND = Use("sendcustommsg", {"node_id": "02", "msg": "9419ab"})


class Clock:
    """Time, as a test says it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Node:
    """Judges runes as a test says, and counts."""

    def __init__(self, answer: RelayError | None = None) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def check_rune(
        self, rune: str, uses: Sequence[Use], deadline: float, caller: str
    ) -> list[RelayError | None]:
        self.asked.append(len(uses))
        await self.answers.wait()
        return [self.answer] * len(uses)


def made(*restrictions: str, number: int = 7) -> str:
    """Make a rune of nobody."""
    parts = [(Alternative("", "=", str(number)),), *((parse_condition(one),) for one in restrictions)]
    return encode(derive(b"secret", parts))


def soon() -> float:
    """Return a deadline that is far enough."""
    return asyncio.get_running_loop().time() + 10.0


async def judged(judge: Runes, rune: Rune, *uses: Use) -> list[Reason | None]:
    """Return the reason for each use."""
    refusals = await judge.judge(rune, uses or [SEND], soon())
    return [refusal and refusal.reason for refusal in refusals]


async def test_narrowed_copies_of_one_rune_are_counted_together() -> None:
    """Once the node says that a copy is valid, its call counts under the id that all copies share."""
    accounts, runes_ = Accounts(CallerLimits(calls=2)), Runes(Node())
    refusals = []
    for number in range(3):
        rune = Rune(made(f"pnamemsg^{'9419'[:number]}"))
        account = CallerAccount(accounts, f"rune:{rune.id}", rune.digest.hex())
        accounts.begin(account.counted_as)
        permit = RunePermit(rune, runes_, account, NoRecord())
        [refusal] = await permit.judge([SEND], soon())
        refusals.append(refusal and refusal.metadata["limit"])
        if number == 2:
            accounts.end(account.counted_as)
    assert refusals == [None, None, "caller_calls"]


def test_a_rune_is_known_by_its_id_and_never_shown() -> None:
    """The id that the node gave it is that of all that is derived from it."""
    text = made("method=sendcustommsg", "rate=3", number=12)
    rune = Rune(text)
    assert rune.id == "12"
    assert text not in repr(rune)


@pytest.mark.parametrize(
    ("restriction", "asks"),
    [
        *(
            (one, False)
            for one in ("method=x", "time<1", "pnum=2", "id=02", "pnamerate=1", "parr0=a", "x#any words")
        ),
        *(
            (one, True)
            for one in ("rate=1", "per=1sec", "rate#1", "per#1", "pinvbolt11_amount<1", "pinv#", "x=1")
        ),
    ],
)
def test_the_node_is_asked_at_each_use_if_only_it_can_judge(restriction: str, asks: bool) -> None:
    """Rates, invoices, and fields that a later lightningd may know; wherever they stand."""
    assert Rune(made(restriction)).asks_node is asks
    assert Rune(made("method=x", restriction)).asks_node is asks


def test_a_rune_with_a_version_or_very_many_conditions_is_left_to_the_node() -> None:
    """The first is never one of lightningd's own; the second would hold up everybody."""
    id_with_version = (Alternative("", "=", "7-"),)
    assert Rune(encode(derive(b"secret", [id_with_version]))).asks_node
    many = ["pnamea=1"] * MAX_CONDITIONS
    assert not Rune(made(*many)).asks_node
    assert Rune(made(*many, "pnamea=1")).asks_node


@pytest.mark.parametrize(
    "text", ["", "a b", "é", "AAAA", "A" * 5000, "A" * 44, '"}', made().rstrip("=") + "==="]
)
def test_what_is_no_rune_never_reaches_the_node(text: str) -> None:
    """lightningd would write it to its log, and the quotes into our request."""
    with pytest.raises(RelayError) as refused:
        Rune(text)
    assert refused.value.reason is Reason.NO_CREDENTIAL


def test_a_rune_has_one_text_only() -> None:
    """Bits that base64 leaves over, and padding, cannot make a second one."""
    text = made("pnamea=12")
    assert text.endswith("=")
    last = text.rstrip("=")[-1]
    other = text.replace(f"{last}=", f"{chr(ord(last) + 1)}=")
    assert Rune(text).id == "7"
    for wrong in (text.rstrip("="), other):
        with pytest.raises(RelayError):
            Rune(wrong)


async def test_the_node_is_asked_once_in_a_while_whatever_is_judged() -> None:
    """Peers and types are judged here, by the hundred thousand; nothing is kept of them."""
    node, clock = Node(not_permitted("method")), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made("pnametype<50000"))
    uses = [Use("subscribecustommsg", {"node_id": "02", "type": number}) for number in range(100_001)]
    refusals = await judge.judge(rune, uses, soon())
    assert [refusal is None for refusal in refusals] == [number < 50_000 for number in range(100_001)]
    clock.now += 9.9
    assert await judged(judge, rune) == [Reason.NOT_PERMITTED]  # it has no parameter `type`
    assert node.asked == [1]
    clock.now += 0.1
    await judged(judge, rune)
    assert node.asked == [1, 1]


async def test_a_withdrawn_rune_is_refused_after_the_interval() -> None:
    """And has to prove itself again as a stranger."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made())
    assert await judged(judge, rune) == [None]
    node.answer = no_credential("withdrawn")
    clock.now += 9.9
    assert await judged(judge, rune) == [None]
    clock.now += 0.1
    assert await judged(judge, rune) == [Reason.NO_CREDENTIAL]
    assert not judge.is_known(rune)


async def test_the_interval_counts_from_the_question_not_from_the_answer() -> None:
    """A node that answers late does not make a withdrawal later."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made())
    node.answers.clear()
    first = asyncio.create_task(judged(judge, rune))
    while not node.asked:
        await asyncio.sleep(0)
    clock.now += 10.0
    node.answers.set()
    assert await first == [None]
    await judged(judge, rune)
    assert node.asked == [1, 1]


async def test_an_interval_of_0_asks_at_each_use() -> None:
    """For whom no withdrawal may be late."""
    node = Node()
    judge, rune = Runes(node, 0.0), Rune(made())
    for _ in range(3):
        await judged(judge, rune)
    assert node.asked == [1, 1, 1]


async def test_those_who_show_the_same_rune_at_once_share_a_question() -> None:
    """A thousand subscriptions are not a thousand questions; who gives up does not take the answer from the others."""
    node = Node()
    judge, rune = Runes(node), Rune(made())
    node.answers.clear()
    tasks = [asyncio.create_task(judged(judge, rune)) for _ in range(1000)]
    while not node.asked:
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    node.answers.set()
    assert await asyncio.gather(*tasks[1:]) == [[None]] * 999
    assert node.asked == [1]


async def test_who_waits_for_the_node_beyond_its_deadline_is_told_so() -> None:
    """Nothing was sent."""
    node = Node()
    judge = Runes(node)
    node.answers.clear()
    [refusal] = await judge.judge(Rune(made()), [SEND], 0.0)
    assert refusal is not None
    assert (refusal.reason, refusal.expired) == (Reason.NOT_SENT, True)
    node.answers.set()


async def test_nothing_is_permitted_while_the_node_cannot_say() -> None:
    """The rune stays known: it is not a stranger when the node is back."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made())
    await judged(judge, rune)
    node.answer = RelayError(Reason.NODE_UNAVAILABLE, "away")
    clock.now += 10.0
    assert await judged(judge, rune) == [Reason.NODE_UNAVAILABLE]
    assert judge.is_known(rune)


async def test_each_use_of_a_rune_with_a_rate_is_the_nodes_to_judge() -> None:
    """A rate counts each; one that is used too soon is valid nevertheless."""
    node = Node(overloaded("rune_rate", "Too soon.", 1.0))
    judge, rune = Runes(node), Rune(made("rate=60"))
    assert await judged(judge, rune) == [Reason.OVERLOADED]
    assert judge.is_known(rune)
    node.answer = None
    assert await judged(judge, rune, SEND, SEND) == [None, None]
    assert node.asked == [1, 2]


async def test_time_is_that_of_the_clock_on_the_wall() -> None:
    """As lightningd has it."""
    wall = Clock()
    judge, rune = Runes(Node(), wall_clock=wall), Rune(made("time<1001"))
    assert await judged(judge, rune) == [None]
    wall.now += 1
    assert await judged(judge, rune) == [Reason.NOT_PERMITTED]


async def test_what_a_rune_says_may_be_any_bytes() -> None:
    """The error that quotes it can be sent nevertheless."""
    rune = Rune(made("pnamemsg=\udcff\n"))
    refusal = rune.refusal(SEND, NOW)
    assert refusal is not None
    assert refusal.message.encode()
    assert refusal.message.endswith("parameter msg is not equal to \ufffd\\n")


async def test_strangers_cannot_fill_the_nodes_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound they wait outside, while those who were let in before are served."""
    node = Node()
    judge, known = Runes(node), Rune(made(number=1))
    await judged(judge, known)
    monkeypatch.setattr(runes, "MAX_STRANGERS", 0)
    for restriction in ("method=sendcustommsg", "rate=1"):
        [refusal] = await judge.judge(Rune(made(restriction, number=2)), [SEND], soon())
        assert refusal is not None
        assert refusal.metadata == {"limit": "unknown_runes"}
    assert await judged(judge, known) == [None]
    assert MAX_STRANGERS > 0


async def test_only_so_many_runes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked about the longest time ago is forgotten first, and is asked about again."""
    monkeypatch.setattr(runes, "MAX_KNOWN", 2)
    node = Node()
    judge, some = Runes(node), [Rune(made(number=number)) for number in range(3)]
    for rune in some:
        assert await judged(judge, rune) == [None]
    assert [judge.is_known(rune) for rune in some] == [False, True, True]
    assert await judged(judge, some[0]) == [None]


@pytest.mark.parametrize("restriction", ["method=sendcustommsg", "rate=1"])
async def test_a_made_up_rune_asks_one_question_however_much_it_wants(restriction: str) -> None:
    """So that a stranger cannot fill the queue to the node; one that turns out to be valid has the rest asked."""
    uses = [Use("sendcustommsg", {"node_id": "02", "msg": str(number)}) for number in range(500)]
    node = Node(no_credential("not ours"))
    assert await Runes(node).judge(Rune(made(restriction)), uses, soon()) == [node.answer] * 500
    assert node.asked == [1]
    node = Node()
    assert await Runes(node).judge(Rune(made(restriction)), uses, soon()) == [None] * 500
    assert node.asked == ([1, 499] if restriction == "rate=1" else [1])


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
