"""What a subscription yields, asks for and raises: both clients, over a real connection."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

import custommsg
from custommsg import Reason
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import PEER, ScriptedGateway, hang, refuse, refuse_because
from support.feed import BIRTH, INBOX_ID, Feed, connected, disconnected, interruption, message

Code = grpc.StatusCode
OTHER_PEER = b"\x03" + PEER[1:]


def at(sequence: int) -> datetime:
    return datetime.fromtimestamp(BIRTH + sequence, UTC)


def test_a_message_is_a_plain_value() -> None:
    """It knows its other spellings."""
    plain = custommsg.Message(1, at(1), PEER, 0x9419, b"hi")
    assert (plain.msg, plain.node_id_hex) == (b"\x94\x19hi", PEER.hex())
    assert not hasattr(plain, "__dict__")


async def test_messages_come_as_plain_values(client: Any, gateway: ScriptedGateway) -> None:
    """No protobuf leaves the client, and times know their zone."""
    gateway.stream = Feed([message(1, payload=b"a"), message(2, type=40001, node_id=OTHER_PEER)])
    got = await client.subscribe().take(2)
    assert got == [
        custommsg.Message(1, at(1), PEER, 37913, b"a"),
        custommsg.Message(2, at(2), OTHER_PEER, 40001, b""),
    ]


EVENTS = [connected(1), interruption(2, lost=3), message(3), disconnected(4), message(5)]
WANTED: list[tuple[dict[str, bool], list[int]]] = [
    ({}, [3, 5]),
    ({"peer_events": True}, [1, 3, 4, 5]),
    ({"interruptions": True}, [2, 3, 5]),
    ({"peer_events": True, "interruptions": True}, [1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("options", "sequences"), WANTED)
async def test_other_events_come_when_asked_for(
    client: Any, gateway: ScriptedGateway, options: dict[str, bool], sequences: list[int]
) -> None:
    """The simple loop gets messages and nothing else."""
    gateway.stream = Feed(EVENTS)
    got = await client.subscribe(**options).take(len(sequences))
    assert [event.sequence for event in got] == sequences
    everything = {
        1: custommsg.PeerConnected(1, at(1), PEER),
        2: custommsg.Interruption(2, at(2), 3),
        4: custommsg.PeerDisconnected(4, at(4), PEER),
    }
    assert all(everything.get(event.sequence, event) == event for event in got)


async def test_an_interruption_that_nobody_asked_for_is_a_warning(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is skipped in silence, not even by a loop that handles messages alone."""
    gateway.stream = Feed([interruption(1, lost=3), interruption(2), message(3)])
    await client.subscribe().next()
    known, unknown = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "before event 1 may be missing" in known.getMessage()
    assert "3 are known to be lost" in known.getMessage()
    assert "how many is not known" in unknown.getMessage()


async def test_an_event_of_a_newer_gateway_is_left_out_with_a_warning(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """What this version has no word for cannot be yielded, but is not hidden."""

    async def stream(request: Any, context: Any) -> Any:
        await context.send_initial_metadata((("custommsg-inbox-id", "i"), ("custommsg-position", "0")))
        yield pb.SubscribeCustomMsgsResponse(events=[pb.Event(sequence=1), message(2)], position=2)
        await hang(request, context)

    gateway.stream = stream
    assert (await client.subscribe().next()).sequence == 2
    assert "Left out event 1" in caplog.text


ASKED: list[tuple[dict[str, Any], pb.SubscribeCustomMsgsRequest]] = [
    ({}, pb.SubscribeCustomMsgsRequest()),
    ({"types": [37913, 40001]}, pb.SubscribeCustomMsgsRequest(types=[37913, 40001])),
    (
        {"types": [range(40000, 40010), 7]},
        pb.SubscribeCustomMsgsRequest(types=[7], type_ranges=[pb.TypeRange(first=40000, last=40009)]),
    ),
    ({"peers": [PEER, OTHER_PEER.hex()]}, pb.SubscribeCustomMsgsRequest(node_ids=[PEER, OTHER_PEER])),
    ({"after": 0}, pb.SubscribeCustomMsgsRequest(after=0)),
    ({"after": 7, "inbox_id": "i"}, pb.SubscribeCustomMsgsRequest(after=7, inbox_id="i")),
    ({"from_beginning": True}, pb.SubscribeCustomMsgsRequest(from_beginning=True)),
    ({"consumer": "a"}, pb.SubscribeCustomMsgsRequest(consumer="a")),
    ({"peer_events": True}, pb.SubscribeCustomMsgsRequest(include_peer_events=True)),
    ({"interruptions": True}, pb.SubscribeCustomMsgsRequest()),
]


@pytest.mark.parametrize(("arguments", "request_"), ASKED)
async def test_what_is_asked_for_reaches_the_gateway(
    client: Any, gateway: ScriptedGateway, arguments: dict[str, Any], request_: pb.SubscribeCustomMsgsRequest
) -> None:
    """Filters and start go out as the contract has them."""
    gateway.stream = feed = Feed([])
    await client.subscribe(**arguments)("start")
    assert feed.requests == [request_]


REFUSED: list[tuple[dict[str, Any], Reason]] = [
    ({"types": []}, Reason.INVALID_FILTER),
    ({"types": [65_536]}, Reason.INVALID_FILTER),
    ({"types": [-1]}, Reason.INVALID_FILTER),
    ({"types": [range(5, 5)]}, Reason.INVALID_FILTER),
    ({"types": [range(0, 10, 2)]}, Reason.INVALID_FILTER),
    ({"types": [range(65_000, 65_537)]}, Reason.INVALID_FILTER),
    ({"peers": []}, Reason.INVALID_FILTER),
    ({"peers": [PEER[:32]]}, Reason.INVALID_NODE_ID),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
async def test_a_filter_that_is_none_is_refused_unasked(
    client: Any, gateway: ScriptedGateway, arguments: dict[str, Any], reason: Reason
) -> None:
    """Above all an empty one: computed and empty it meant "none", and to the gateway it would mean "all"."""
    with pytest.raises(custommsg.InvalidRequest) as caught:
        client.subscribe(**arguments)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"after": 1, "from_beginning": True}, TypeError),
        ({"peers": PEER.hex()}, TypeError),
        ({"peers": PEER}, TypeError),
        ({"types": 37913}, TypeError),
        ({"types": ["37913"]}, TypeError),
        ({"after": -1}, ValueError),
        ({"after": 2**64}, ValueError),
        ({"timeout": 0}, ValueError),
    ],
)
async def test_a_mistake_in_the_program_is_told_at_once(
    client: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """Not when the loop begins."""
    with pytest.raises(error):
        client.subscribe(**arguments)


async def test_it_is_registered_before_it_is_iterated(client: Any, gateway: ScriptedGateway) -> None:
    """A protocol subscribes, then asks, then reads the answer."""
    gateway.stream = feed = Feed([message(8)], starts_at=7)
    listening = client.subscribe()
    assert (listening.subscription.position, listening.subscription.inbox_id) == (None, "")
    await listening("start")
    assert feed.registered.is_set()
    assert (listening.subscription.position, listening.subscription.inbox_id) == (7, INBOX_ID)
    assert (await listening.next()).sequence == 8


async def test_entering_registers_and_leaving_ends_it(gateway: ScriptedGateway) -> None:
    """The gateway sees it go when the block is left."""
    gateway.stream = feed = Feed([message(1)])
    async with custommsg.aio.connect(gateway.address) as client, client.subscribe() as subscription:
        assert feed.registered.is_set()
        assert (await anext(subscription)).sequence == 1
        await subscription.close()
        await feed.gone.wait()

    def block() -> list[int]:
        with custommsg.sync.connect(gateway.address) as client, client.subscribe() as subscription:
            return [next(subscription).sequence]

    gateway.stream = feed = Feed([message(1)])
    assert await asyncio.to_thread(block) == [1]
    await feed.gone.wait()


async def test_the_position_moves_with_what_passes_no_filter(client: Any, gateway: ScriptedGateway) -> None:
    """Who stores it with a narrow filter does not fall behind."""
    gateway.stream = Feed([message(1), message(2, type=1), message(3, type=1), message(4)], [1, 2, 0, 1])
    listening = client.subscribe(types=[37913])
    positions = []
    for _ in range(2):
        await listening.next()
        positions.append(listening.subscription.position)
    assert positions == [1, 4]


FINAL = [
    ("INVALID_FILTER", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("INVALID_CONSUMER", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("INVALID_NODE_ID", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("NO_CREDENTIAL", Code.UNAUTHENTICATED, custommsg.NotPermitted),
    ("NOT_PERMITTED", Code.PERMISSION_DENIED, custommsg.NotPermitted),
    ("POSITION_EXPIRED", Code.OUT_OF_RANGE, custommsg.PositionExpired),
]


@pytest.mark.parametrize(("reason", "code", "kind"), FINAL)
@pytest.mark.parametrize("later", [False, True], ids=["at first", "on reconnect"])
async def test_what_cannot_be_helped_is_raised(
    client: Any,
    gateway: ScriptedGateway,
    reason: str,
    code: grpc.StatusCode,
    kind: type[custommsg.CustomMsgError],
    later: bool,
) -> None:
    """At the first connection or at any other, and once."""
    refusal = refuse_because(code, reason, "Do this.")
    plans = [[1, refuse(Code.UNAVAILABLE, "cut")], [refusal]] if later else [[refusal]]
    gateway.stream = feed = Feed([message(1), message(2)], *plans)
    listening = client.subscribe()
    if later:
        await listening.next()
    with pytest.raises(custommsg.CustomMsgError, match="Do this") as caught:
        await listening.next()
    assert type(caught.value) is kind
    assert len(feed.requests) == len(plans)


async def test_an_expired_position_says_what_is_kept(client: Any, gateway: ScriptedGateway) -> None:
    """Enough to decide how to go on."""
    expired = refuse_because(
        Code.OUT_OF_RANGE, "POSITION_EXPIRED", metadata={"earliest": "50", "latest": "99"}
    )
    gateway.stream = Feed([], [expired])
    with pytest.raises(custommsg.PositionExpired) as caught:
        await client.subscribe(after=7).next()
    error = caught.value
    assert (error.position, error.earliest, error.latest) == (7, 50, 99)
    gateway.stream = Feed([message(1)], [1, refuse_because(Code.OUT_OF_RANGE, "POSITION_EXPIRED")])
    listening = client.subscribe()
    await listening.next()
    with pytest.raises(custommsg.PositionExpired) as caught:
        await listening.next()
    assert (caught.value.position, caught.value.earliest, caught.value.latest) == (1, None, None)


async def test_the_first_connection_fails_as_any_call_does(connect: Any, gateway: ScriptedGateway) -> None:
    """A wrong address, a gateway that never answers: an error, not a loop that waits in silence."""
    with pytest.raises(custommsg.NotSent, match="cannot be reached"):
        await connect("unix:/nowhere/at/all").subscribe()("start")

    async def silent(request: Any, context: Any) -> Any:
        await hang(request, context)
        yield

    gateway.stream = silent
    with pytest.raises(
        custommsg.NotSent, match=r"did not register the subscription within 0\.\d+ s"
    ) as caught:
        await connect(gateway.address).subscribe(timeout=0.1)("start")
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_the_first_connection_waits_where_the_gateway_asks_to(
    client: Any, gateway: ScriptedGateway
) -> None:
    """RetryInfo means the same here as for every call."""
    later = refuse_because(Code.UNAVAILABLE, "INBOX_UNAVAILABLE", retry_after=0.001)
    gateway.stream = feed = Feed([message(1)], [later], [later])
    assert (await client.subscribe().next()).sequence == 1
    assert len(feed.requests) == 3


async def test_a_gateway_that_does_not_say_where_it_starts_is_refused(
    client: Any, gateway: ScriptedGateway
) -> None:
    """Without a position a cut before the first message would lose some, and nobody would know."""

    async def stream(request: Any, context: Any) -> Any:
        yield pb.SubscribeCustomMsgsResponse(position=5)
        await hang(request, context)

    gateway.stream = stream
    with pytest.raises(custommsg.CustomMsgError, match="custommsg-position") as caught:
        await client.subscribe()("start")
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize("whose", ["subscription", "client"])
async def test_closing_ends_an_iteration_that_waits(
    client: Any, gateway: ScriptedGateway, whose: str
) -> None:
    """The loop ends as if there were no more messages; closing again does no harm."""
    gateway.stream = feed = Feed([])
    listening = client.subscribe()
    await listening("start")
    waiting = asyncio.create_task(listening.next())
    await (listening("close") if whose == "subscription" else client("close"))
    assert await waiting is None
    await feed.gone.wait()
    await listening("close")
    assert await listening.next() is None
    assert len(feed.requests) == 1


async def test_a_wait_that_is_cancelled_loses_nothing(gateway: ScriptedGateway) -> None:
    """A timeout around the next message leaves a subscription that goes on."""
    gateway.stream = feed = Feed([message(1), message(2)], [1])
    async with custommsg.aio.connect(gateway.address) as client:
        subscription = client.subscribe()
        assert (await anext(subscription)).sequence == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(subscription)
        assert (await anext(subscription)).sequence == 2
    assert [request.after for request in feed.requests] == [0, 1]


async def test_a_task_that_is_cancelled_while_it_waits_stays_cancelled(gateway: ScriptedGateway) -> None:
    """The cancellation is not taken for the end of the stream, and reaches the gateway."""
    gateway.stream = feed = Feed([])
    async with custommsg.aio.connect(gateway.address) as client:
        subscription = await client.subscribe().start()
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await feed.gone.wait()


async def test_a_subscription_that_is_dropped_is_gone(gateway: ScriptedGateway) -> None:
    """Who leaves the loop without closing does not keep a stream open for ever."""
    gateway.stream = feed = Feed([message(1)])
    async with custommsg.aio.connect(gateway.address) as client:
        async for _ in client.subscribe():
            break
        await feed.gone.wait()

    def drop(client: custommsg.sync.Client) -> None:
        for _ in client.subscribe():
            break

    gateway.stream = feed = Feed([message(1)])
    with custommsg.sync.connect(gateway.address) as blocking:
        await asyncio.to_thread(drop, blocking)
        await feed.gone.wait()
