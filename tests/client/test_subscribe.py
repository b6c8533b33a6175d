"""What a subscription yields, asks for and raises: both clients, over a real connection."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

import custommsg
from custommsg import Reason
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import NODE, PEER, ScriptedGateway, hang, refuse, refuse_because, reply
from support.feed import BIRTH, Feed, connected, disconnected, interruption, message, position

Code = grpc.StatusCode
OTHER_PEER = b"\x03" + PEER[1:]


def place(number: int) -> tuple[str, datetime, bytes]:
    """Return what every event begins with: its position, its time and our node."""
    return position(number), datetime.fromtimestamp(BIRTH + number, UTC), NODE


def test_a_message_is_a_plain_value() -> None:
    """It has the whole message and the peer's id as hex, too."""
    plain = custommsg.Message(*place(1), PEER, 0x9419, b"hi")
    assert (plain.msg, plain.peer_id_hex) == (b"\x94\x19hi", PEER.hex())
    assert not hasattr(plain, "__dict__")


def test_an_interruption_says_what_it_means() -> None:
    """For a log, or for people: which messages may be missing, and how many."""
    everybody = str(custommsg.Interruption(*place(1), b"", 0))
    assert position(1) in everybody
    assert "how many is not known" in everybody
    one = str(custommsg.Interruption(*place(1), PEER, 3))
    assert PEER.hex() in one
    assert "3 are known to be lost" in one


async def test_messages_come_as_plain_values(client: Any, gateway: ScriptedGateway) -> None:
    """No protobuf leaves the client, and times know their zone."""
    gateway.stream = Feed([message(1, payload=b"a"), message(2, type=40001, peer_id=OTHER_PEER)])
    got = await client.subscribe().take(2)
    assert got == [
        custommsg.Message(*place(1), PEER, 37913, b"a"),
        custommsg.Message(*place(2), OTHER_PEER, 40001, b""),
    ]


EVENTS = [connected(1), interruption(2, lost=3), message(3), disconnected(4), message(5)]
WANTED: list[tuple[dict[str, bool], list[int]]] = [
    ({}, [3, 5]),
    ({"peer_events": True}, [1, 3, 4, 5]),
    ({"interruptions": True}, [2, 3, 5]),
    ({"peer_events": True, "interruptions": True}, [1, 2, 3, 4, 5]),
]


EVERYTHING: list[custommsg.Event] = [
    custommsg.PeerConnected(*place(1), PEER),
    custommsg.Interruption(*place(2), b"", 3),
    custommsg.Message(*place(3), PEER, 37913, b""),
    custommsg.PeerDisconnected(*place(4), PEER),
    custommsg.Message(*place(5), PEER, 37913, b""),
]


@pytest.mark.parametrize(("options", "numbers"), WANTED)
async def test_other_events_come_when_asked_for(
    client: Any, gateway: ScriptedGateway, options: dict[str, bool], numbers: list[int]
) -> None:
    """A simple loop gets messages and nothing else; a listing has the same options."""
    gateway.stream = Feed(EVENTS)
    expected = [EVERYTHING[number - 1] for number in numbers]
    assert await client.subscribe(**options).take(len(numbers)) == expected
    gateway.script.append(reply(pb.ListEventsResponse(events=EVENTS)))
    assert await client.list_events(**options) == expected


async def test_an_interruption_that_nobody_asked_for_is_a_warning(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is skipped silently, not even in a loop that handles only messages."""
    gateway.stream = Feed([interruption(1, lost=3), interruption(2), message(3)])
    await client.subscribe().next()
    known, unknown = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"before event {position(1)} may be missing" in known.getMessage()
    assert "3 are known to be lost" in known.getMessage()
    assert "how many is not known" in unknown.getMessage()


async def test_an_event_of_a_newer_gateway_is_left_out_with_a_warning(
    client: Any, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """An event of an unknown kind cannot be yielded, but it is not hidden."""
    gateway.stream = Feed([pb.Event(position=position(1)), message(2)])
    assert (await client.subscribe().next()).position == position(2)
    assert f"Left out event {position(1)}" in caplog.text


def asked(**fields: Any) -> pb.SubscribeCustomMsgsRequest:
    """Make the request with this filter."""
    return pb.SubscribeCustomMsgsRequest(filter=pb.EventFilter(**fields))


ASKED: list[tuple[dict[str, Any], pb.SubscribeCustomMsgsRequest]] = [
    ({}, pb.SubscribeCustomMsgsRequest()),
    ({"types": [37913, 40001]}, asked(types=[37913, 40001])),
    (
        {"types": [range(40000, 40010), 7]},
        asked(types=[7], type_ranges=[pb.TypeRange(first=40000, last=40009)]),
    ),
    ({"peers": [PEER, OTHER_PEER.hex()]}, asked(peer_ids=[PEER, OTHER_PEER])),
    ({"after": position(7)}, pb.SubscribeCustomMsgsRequest(after=position(7))),
    ({"from_beginning": True}, pb.SubscribeCustomMsgsRequest(from_beginning=True)),
    ({"consumer": "a"}, pb.SubscribeCustomMsgsRequest(consumer="a")),
    (
        {"consumer": "a", "after": position(7)},
        pb.SubscribeCustomMsgsRequest(consumer="a", after=position(7)),
    ),
    ({"peer_events": True}, asked(include_peer_events=True)),
    ({"interruptions": True}, pb.SubscribeCustomMsgsRequest()),
    ({"node_id": NODE.hex()}, pb.SubscribeCustomMsgsRequest(node_id=NODE)),
]


@pytest.mark.parametrize(("arguments", "request_"), ASKED)
async def test_what_is_asked_for_reaches_the_gateway(
    client: Any, gateway: ScriptedGateway, arguments: dict[str, Any], request_: pb.SubscribeCustomMsgsRequest
) -> None:
    """The filter and the start are sent as the contract has them."""
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
    ({"node_id": PEER[:32]}, Reason.INVALID_NODE_ID),
    ({"after": ""}, Reason.INVALID_POSITION),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
async def test_an_invalid_request_is_refused_without_asking_the_gateway(
    client: Any, gateway: ScriptedGateway, arguments: dict[str, Any], reason: Reason
) -> None:
    """Above all an empty list or text: to the gateway it would mean "all"."""
    for method in (client.subscribe, client.client.list_events):
        with pytest.raises(custommsg.InvalidRequest) as caught:
            method(**arguments)
        assert caught.value.reason is reason


async def test_an_empty_consumer_name_is_refused(client: Any) -> None:
    """To the gateway it would mean that the subscription has no name."""
    with pytest.raises(custommsg.InvalidRequest) as caught:
        client.subscribe(consumer="")
    assert caught.value.reason is Reason.INVALID_CONSUMER
    for method, arguments in (("ack", ("", position(1))), ("delete_consumer", ("",))):
        with pytest.raises(custommsg.InvalidRequest, match="INVALID_CONSUMER"):
            await client(method, *arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"after": position(1), "from_beginning": True}, TypeError),
        ({"after": 1}, TypeError),
        ({"peers": PEER.hex()}, TypeError),
        ({"peers": PEER}, TypeError),
        ({"types": 37913}, TypeError),
        ({"types": ["37913"]}, TypeError),
        ({"timeout": 0}, ValueError),
    ],
)
async def test_a_mistake_in_the_program_is_raised_at_once(
    client: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """Not when the loop begins."""
    with pytest.raises(error):
        client.subscribe(**arguments)


async def test_it_is_registered_before_it_is_iterated(client: Any, gateway: ScriptedGateway) -> None:
    """A protocol subscribes, then asks, then reads the answer."""
    gateway.stream = feed = Feed([message(8)], starts_at=7)
    listening = client.subscribe()
    assert listening.subscription.position is None
    await listening("start")
    assert feed.registered.is_set()
    assert listening.subscription.position == position(7)
    assert (await listening.next()).position == position(8)


async def test_entering_registers_and_leaving_ends_it(gateway: ScriptedGateway) -> None:
    """The gateway sees the end when the block is left."""
    gateway.stream = feed = Feed([message(1)])
    async with custommsg.aio.connect(gateway.address) as client, client.subscribe() as subscription:
        assert feed.registered.is_set()
        assert (await anext(subscription)).position == position(1)
        await subscription.close()
        await feed.gone.wait()

    def block() -> list[str]:
        with custommsg.sync.connect(gateway.address) as client, client.subscribe() as subscription:
            return [next(subscription).position]

    gateway.stream = feed = Feed([message(1)])
    assert await asyncio.to_thread(block) == [position(1)]
    await feed.gone.wait()


async def test_the_position_moves_with_what_passes_no_filter(client: Any, gateway: ScriptedGateway) -> None:
    """A program that stores it does not fall behind, even with a narrow filter."""
    gateway.stream = Feed([message(1), message(2, type=1), message(3, type=1), message(4)], [1, 2, 0, 1])
    listening = client.subscribe(types=[37913])
    positions = []
    for _ in range(2):
        await listening.next()
        positions.append(listening.subscription.position)
    assert positions == [position(1), position(4)]


FINAL = [
    ("INVALID_FILTER", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("INVALID_CONSUMER", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("INVALID_NODE_ID", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("NO_CREDENTIAL", Code.UNAUTHENTICATED, custommsg.NotPermitted),
    ("NOT_PERMITTED", Code.PERMISSION_DENIED, custommsg.NotPermitted),
    ("POSITION_EXPIRED", Code.OUT_OF_RANGE, custommsg.PositionExpired),
    ("POSITION_OF_OTHER_INBOX", Code.FAILED_PRECONDITION, custommsg.PositionOfOtherInbox),
    ("POSITION_NOT_REACHED", Code.OUT_OF_RANGE, custommsg.PositionNotReached),
    ("INVALID_POSITION", Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    ("NODE_UNKNOWN", Code.NOT_FOUND, custommsg.NodeUnknown),
]


@pytest.mark.parametrize(("reason", "code", "kind"), FINAL)
@pytest.mark.parametrize("later", [False, True], ids=["at first", "on reconnect"])
async def test_an_error_that_a_retry_cannot_help_is_raised(
    client: Any,
    gateway: ScriptedGateway,
    reason: str,
    code: grpc.StatusCode,
    kind: type[custommsg.CustomMsgError],
    later: bool,
) -> None:
    """On the first connection or a later one, and once."""
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


async def test_a_position_error_says_where_and_how_to_go_on(client: Any, gateway: ScriptedGateway) -> None:
    """The position that was asked for, or that the subscription had; and the position that would work."""
    expired = refuse_because(Code.OUT_OF_RANGE, "POSITION_EXPIRED", metadata={"earliest": position(50)})
    gateway.stream = Feed([], [expired])
    with pytest.raises(custommsg.PositionExpired) as caught:
        await client.subscribe(after=position(7)).next()
    assert (caught.value.position, caught.value.earliest) == (position(7), position(50))
    gateway.stream = Feed([message(1)], [1, refuse_because(Code.OUT_OF_RANGE, "POSITION_NOT_REACHED")])
    listening = client.subscribe()
    await listening.next()
    with pytest.raises(custommsg.PositionNotReached) as not_reached:
        await listening.next()
    assert (not_reached.value.position, not_reached.value.latest) == (position(1), None)


async def test_the_first_connection_fails_as_any_call_does(connect: Any, gateway: ScriptedGateway) -> None:
    """A wrong address, or a gateway that never answers, is an error and not an endless wait."""
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
    assert (await client.subscribe().next()).position == position(1)
    assert len(feed.requests) == 3


@pytest.mark.parametrize(
    "first",
    [
        pb.SubscribeCustomMsgsResponse(),
        pb.SubscribeCustomMsgsResponse(events=[message(5)], position=position(5)),
    ],
)
async def test_a_first_response_that_does_not_say_where_it_starts_is_refused(
    client: Any, gateway: ScriptedGateway, first: pb.SubscribeCustomMsgsResponse
) -> None:
    """Without that position, a connection that breaks before the first message would lose some silently."""

    async def stream(request: Any, context: Any) -> Any:
        yield first
        await hang(request, context)

    gateway.stream = stream
    with pytest.raises(custommsg.CustomMsgError, match="first response") as caught:
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
    """After a timeout the subscription goes on."""
    gateway.stream = feed = Feed([message(1), message(2)], [1])
    async with custommsg.aio.connect(gateway.address) as client:
        subscription = client.subscribe()
        assert (await anext(subscription)).position == position(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(subscription)
        assert (await anext(subscription)).position == position(2)
    assert [request.after for request in feed.requests] == ["", position(1)]


async def test_a_task_that_is_cancelled_while_it_waits_stays_cancelled(gateway: ScriptedGateway) -> None:
    """The iteration does not end as if the stream had ended, and the gateway sees the cancellation."""
    gateway.stream = feed = Feed([])
    async with custommsg.aio.connect(gateway.address) as client:
        subscription = await client.subscribe().start()
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await feed.gone.wait()


async def test_a_subscription_that_is_dropped_ends(gateway: ScriptedGateway) -> None:
    """A loop that is left without closing does not keep a stream open for ever."""
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


async def test_a_listing_is_read_page_by_page(client: Any, gateway: ScriptedGateway) -> None:
    """Each page is asked for with the same filter and the token of the last page, and not before it is needed."""
    gateway.script.append(reply(pb.ListEventsResponse(events=[message(1), message(2)], next_page_token="a")))
    gateway.script.append(reply(pb.ListEventsResponse(next_page_token="b")))
    gateway.script.append(reply(pb.ListEventsResponse(events=[message(3)])))
    listed = await client.list_events(
        types=[37913], peers=[PEER], after=position(0), page_size=2, node_id=NODE, peer_events=True
    )
    assert [event.position for event in listed] == [position(1), position(2), position(3)]
    wanted = pb.EventFilter(types=[37913], peer_ids=[PEER], include_peer_events=True)
    assert gateway.requests == [
        pb.ListEventsRequest(filter=wanted, after=position(0), page_size=2, page_token=token, node_id=NODE)
        for token in ("", "a", "b")
    ]


async def test_a_listing_that_is_left_asks_for_no_more(gateway: ScriptedGateway) -> None:
    """The first event of a page is there before the next page is asked for."""
    page = reply(pb.ListEventsResponse(events=[message(1), message(2)], next_page_token="a"))
    gateway.script.extend([page, page])
    async with custommsg.aio.connect(gateway.address) as client:
        async with aclosing(client.list_events()) as listed:
            assert (await anext(listed)).position == position(1)
        with custommsg.sync.connect(gateway.address) as blocking:
            assert (await asyncio.to_thread(next, blocking.list_events())).position == position(1)
    assert gateway.requests == [pb.ListEventsRequest()] * 2


async def test_a_listing_fails_as_any_call_does(client: Any, gateway: ScriptedGateway) -> None:
    """Typed, after the pages before it, and retried where the gateway asks for it."""
    later = refuse_because(Code.UNAVAILABLE, "INBOX_UNAVAILABLE", retry_after=0.001)
    other = refuse_because(Code.FAILED_PRECONDITION, "POSITION_OF_OTHER_INBOX")
    gateway.script.extend([later, reply(pb.ListEventsResponse()), other])
    assert await client.list_events() == []
    with pytest.raises(custommsg.PositionOfOtherInbox):
        await client.list_events(after=position(1))


@pytest.mark.parametrize("page_size", [0, -1, 2**31])
async def test_an_invalid_page_size_is_refused(client: Any, page_size: int) -> None:
    """Zero would mean that the gateway decides: for that, leave it out."""
    with pytest.raises(custommsg.InvalidRequest, match="INVALID_PAGE"):
        client.client.list_events(page_size=page_size)
