"""Runes: what the node checks, and what the gateway checks."""

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
from support.every_rpc import until_serving
from support.gateways import gateway

NOW = 1000.0
SEND = Use("sendcustommsg", {"node_id": "02", "msg": "9419ab"})


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Node:
    """Checks runes as the test says, and counts the requests."""

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
    """Make a rune without a node."""
    parts = [(Alternative("", "=", str(number)),), *((parse_condition(one),) for one in restrictions)]
    return encode(derive(b"secret", parts))


def soon() -> float:
    """Return a deadline."""
    return asyncio.get_running_loop().time() + 10.0


async def judged(judge: Runes, rune: Rune, *uses: Use) -> list[Reason | None]:
    """Return the reason for each use."""
    refusals = await judge.judge(rune, uses or [SEND], soon())
    return [refusal and refusal.reason for refusal in refusals]


async def test_narrowed_copies_of_one_rune_are_counted_together() -> None:
    """When the node has accepted a copy, its call counts under the id that all copies share."""
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
    """All runes derived from it have the same id."""
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
    """Rates, invoices, and unknown fields that a later lightningd may know, at any place."""
    assert Rune(made(restriction)).asks_node is asks
    assert Rune(made("method=x", restriction)).asks_node is asks


def test_a_rune_with_a_version_or_very_many_conditions_is_left_to_the_node() -> None:
    """lightningd makes no runes with a version; many conditions would block the event loop."""
    id_with_version = (Alternative("", "=", "7-"),)
    assert Rune(encode(derive(b"secret", [id_with_version]))).asks_node
    many = ["pnamea=1"] * MAX_CONDITIONS
    assert not Rune(made(*many)).asks_node
    assert Rune(made(*many, "pnamea=1")).asks_node


@pytest.mark.parametrize(
    "text", ["", "a b", "é", "AAAA", "A" * 5000, "A" * 44, '"}', made().rstrip("=") + "==="]
)
def test_what_is_no_rune_never_reaches_the_node(text: str) -> None:
    """lightningd would log it, and its quotes would break the JSON request."""
    with pytest.raises(RelayError) as refused:
        Rune(text)
    assert refused.value.reason is Reason.NO_CREDENTIAL


def test_a_rune_has_one_text_only() -> None:
    """Unused bits of base64 and padding cannot make a second text."""
    text = made("pnamea=12")
    assert text.endswith("=")
    last = text.rstrip("=")[-1]
    other = text.replace(f"{last}=", f"{chr(ord(last) + 1)}=")
    assert Rune(text).id == "7"
    for wrong in (text.rstrip("="), other):
        with pytest.raises(RelayError):
            Rune(wrong)


async def test_the_node_is_asked_once_in_a_while_whatever_is_judged() -> None:
    """Peers and types are checked in the gateway, any number of them; they take no memory."""
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
    """Then it counts as unknown again."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made())
    assert await judged(judge, rune) == [None]
    node.answer = no_credential("withdrawn")
    clock.now += 9.9
    assert await judged(judge, rune) == [None]
    clock.now += 0.1
    assert await judged(judge, rune) == [Reason.NO_CREDENTIAL]
    assert not judge.is_known(rune)


async def test_another_interval_holds_for_runes_that_are_known() -> None:
    """SIGHUP can make a withdrawal take effect sooner."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 3600.0, clock), Rune(made())
    assert await judged(judge, rune) == [None]
    node.answer = no_credential("withdrawn")
    clock.now += 10
    assert await judged(judge, rune) == [None]
    judge.set(10.0)
    assert await judged(judge, rune) == [Reason.NO_CREDENTIAL]


async def test_the_interval_counts_from_the_question_not_from_the_answer() -> None:
    """A late answer of the node does not delay a revocation."""
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
    """So that a revocation takes effect at once."""
    node = Node()
    judge, rune = Runes(node, 0.0), Rune(made())
    for _ in range(3):
        await judged(judge, rune)
    assert node.asked == [1, 1, 1]


async def test_those_who_show_the_same_rune_at_once_share_a_question() -> None:
    """A thousand subscriptions need one request; a cancelled one does not affect the others."""
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
    """The rune stays known until the node answers again."""
    node, clock = Node(), Clock()
    judge, rune = Runes(node, 10.0, clock), Rune(made())
    await judged(judge, rune)
    node.answer = RelayError(Reason.NODE_UNAVAILABLE, "away")
    clock.now += 10.0
    assert await judged(judge, rune) == [Reason.NODE_UNAVAILABLE]
    assert judge.is_known(rune)


async def test_each_use_of_a_rune_with_a_rate_is_the_nodes_to_judge() -> None:
    """A rune that is used too soon stays valid."""
    node = Node(overloaded("rune_rate", "Too soon.", 1.0))
    judge, rune = Runes(node), Rune(made("rate=60"))
    assert await judged(judge, rune) == [Reason.OVERLOADED]
    assert judge.is_known(rune)
    node.answer = None
    assert await judged(judge, rune, SEND, SEND) == [None, None]
    assert node.asked == [1, 2]


async def test_time_is_that_of_the_clock_on_the_wall() -> None:
    """As in lightningd."""
    wall = Clock()
    judge, rune = Runes(Node(), wall_clock=wall), Rune(made("time<1001"))
    assert await judged(judge, rune) == [None]
    wall.now += 1
    assert await judged(judge, rune) == [Reason.NOT_PERMITTED]


async def test_what_a_rune_says_may_be_any_bytes() -> None:
    """The error that quotes it can be sent."""
    rune = Rune(made("pnamemsg=\udcff\n"))
    refusal = rune.refusal(SEND, NOW)
    assert refusal is not None
    assert refusal.message.encode()
    assert refusal.message.endswith("parameter msg is not equal to \ufffd\\n")


async def test_strangers_cannot_fill_the_nodes_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a limit they are refused, while known runes are served."""
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
    """The one that was checked the longest time ago is forgotten first, and is checked again."""
    monkeypatch.setattr(runes, "MAX_KNOWN", 2)
    node = Node()
    judge, some = Runes(node), [Rune(made(number=number)) for number in range(3)]
    for rune in some:
        assert await judged(judge, rune) == [None]
    assert [judge.is_known(rune) for rune in some] == [False, True, True]
    assert await judged(judge, some[0]) == [None]


@pytest.mark.parametrize("restriction", ["method=sendcustommsg", "rate=1"])
async def test_a_made_up_rune_asks_one_question_however_much_it_wants(restriction: str) -> None:
    """So that it cannot fill the queue to the node; if it is valid, the other uses are checked, too."""
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
    """Even if none of them could be sent."""
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
