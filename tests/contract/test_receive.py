"""Receiving, as the contract has it: over every kind of node, and both ways to attach."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb

from .conftest import Rig
from .test_send import failed

Request = pb.SubscribeCustomMsgsRequest


class Subscriber:
    """A subscription through the stub, read event by event."""

    def __init__(self, rig: Rig, **request: Any) -> None:
        self.call = rig.stub.SubscribeCustomMsgs(Request(**request))
        self.position = ""
        self._events: list[pb.Event] = []

    async def registered(self) -> str:
        """Wait until whatever arrives will be delivered; return where it starts."""
        first = await self.call.read()
        assert not first.events
        self.position = first.position
        assert self.position
        return self.position

    async def event(self) -> pb.Event:
        """Return the next event that is not an interruption."""
        async with asyncio.timeout(20):
            while not self._events:
                response = await self.call.read()
                assert response is not grpc.aio.EOF, "the stream has ended"
                self.position = response.position
                self._events += [one for one in response.events if one.WhichOneof("kind") != "interruption"]
        return self._events.pop(0)

    async def messages(self, count: int) -> list[bytes]:
        """Return the payloads of the next messages."""
        return [(await self.event()).message.payload for _ in range(count)]


async def send_to_node(rig: Rig, number: int, message_type: int = 40001) -> None:
    """Have the peer send a numbered message to the node."""
    await rig.node.peer.send(rig.node.id, message_type.to_bytes(2, "big") + number.to_bytes(4, "big"))


def numbers(first: int, last: int) -> list[bytes]:
    """Return the payloads of numbered messages, both ends included."""
    return [number.to_bytes(4, "big") for number in range(first, last + 1)]


async def test_a_subscriber_gets_what_peers_send(receiving_rig: Rig) -> None:
    """Peer, type and bytes, as they were sent, in order; each event names its place, our node and the peer."""
    rig = receiving_rig
    subscriber = Subscriber(rig)
    await subscriber.registered()
    for number in range(50):
        await send_to_node(rig, number)
    events = [await subscriber.event() for _ in range(50)]
    assert [event.message.payload for event in events] == numbers(0, 49)
    assert {(event.peer_id, event.message.type) for event in events} == {(rig.node.peer.id, 40001)}
    assert {event.peer_id_hex for event in events} == {rig.node.peer.id.hex()}
    assert {event.node_id for event in events} == {rig.node.id}
    assert len({event.position for event in events}) == 50
    assert all(event.time.seconds > 1_600_000_000 for event in events)


async def test_a_message_of_the_largest_size_arrives_whole(receiving_rig: Rig) -> None:
    """65,535 bytes."""
    subscriber = Subscriber(receiving_rig)
    await subscriber.registered()
    payload = bytes(range(256)) * 255 + bytes(253)
    await receiving_rig.node.peer.send(receiving_rig.node.id, b"\x9c\x41" + payload)
    assert await subscriber.messages(1) == [payload]


async def test_backlog_and_live_join_without_a_gap(receiving_rig: Rig) -> None:
    """From the beginning, after a position, and live: each gets what it asked for, once, in order."""
    rig = receiving_rig
    live = Subscriber(rig)
    await live.registered()
    for number in range(20):
        await send_to_node(rig, number)
    first = [await live.event() for _ in range(20)]
    everything = Subscriber(rig, from_beginning=True)
    resumed = Subscriber(rig, after=first[9].position)
    for number in range(20, 40):
        await send_to_node(rig, number)
    assert await live.messages(20) == numbers(20, 39)
    assert await everything.messages(40) == numbers(0, 39)
    assert await resumed.messages(30) == numbers(10, 39)


async def test_filters_by_type_and_by_peer(receiving_rig: Rig) -> None:
    """Types one by one and as ranges; a peer that never writes."""
    rig = receiving_rig
    types = pb.EventFilter(types=[40003], type_ranges=[pb.TypeRange(first=50001, last=50003)])
    by_type = Subscriber(rig, filter=types)
    by_peer = Subscriber(rig, filter=pb.EventFilter(peer_ids=[rig.node.peer.id]))
    of_another = Subscriber(rig, filter=pb.EventFilter(peer_ids_hex=[rig.node.id.hex()]))
    for subscriber in (by_type, by_peer, of_another):
        await subscriber.registered()
    for number, message_type in enumerate([40001, 40003, 50001, 50003, 50005]):
        await send_to_node(rig, number, message_type)
    assert await by_type.messages(3) == numbers(1, 3)
    assert await by_peer.messages(5) == numbers(0, 4)
    await _nothing_until(of_another, by_peer.position)


async def test_connects_and_disconnects_are_events_in_the_same_order(receiving_rig: Rig) -> None:
    """So a protocol can tell a silent peer from one that has disconnected."""
    rig = receiving_rig
    subscriber = Subscriber(rig, filter=pb.EventFilter(include_peer_events=True))
    await subscriber.registered()
    await send_to_node(rig, 1)
    assert (await subscriber.event()).message.payload == numbers(1, 1)[0]
    await rig.node.peer.disconnect(rig.node.id)
    gone = await subscriber.event()
    await rig.node.peer.connect(f"{rig.node.id.hex()}@{rig.node.address}")
    back = await subscriber.event()
    assert [event.WhichOneof("kind") for event in (gone, back)] == ["peer_disconnected", "peer_connected"]
    assert {gone.peer_id, back.peer_id} == {rig.node.peer.id}


async def test_a_named_consumer_resumes_after_what_it_acknowledged(receiving_rig: Rig) -> None:
    """At least once: what was not acknowledged is delivered again; an explicit position wins over the stored one."""
    rig = receiving_rig
    first = Subscriber(rig, consumer="orders")
    await first.registered()
    for number in range(5):
        await send_to_node(rig, number)
    events = [await first.event() for _ in range(5)]
    ack = pb.AckCustomMsgsRequest(consumer="orders", position=events[2].position)
    assert (await rig.stub.AckCustomMsgs(ack)).position == events[2].position
    first.call.cancel()
    second = Subscriber(rig, consumer="orders")
    assert await second.messages(2) == numbers(3, 4)
    [consumer] = (await rig.stub.ListConsumers(pb.ListConsumersRequest())).consumers
    assert (consumer.name, consumer.position, consumer.lag) == ("orders", events[2].position, 2)
    lower = pb.AckCustomMsgsRequest(consumer="orders", position=events[0].position)
    assert (await rig.stub.AckCustomMsgs(lower)).position == events[2].position
    third = Subscriber(rig, consumer="orders", after=events[0].position)
    assert await third.messages(2) == numbers(1, 2)
    await rig.stub.DeleteConsumer(pb.DeleteConsumerRequest(consumer="orders"))
    assert not (await rig.stub.ListConsumers(pb.ListConsumersRequest())).consumers


async def test_a_new_consumer_misses_nothing_before_its_first_acknowledgement(receiving_rig: Rig) -> None:
    """Its position is kept from its first subscription on, not from its first acknowledgement."""
    rig = receiving_rig
    first = Subscriber(rig, consumer="new")
    await first.registered()
    first.call.cancel()
    await send_to_node(rig, 7)
    assert await Subscriber(rig, consumer="new").messages(1) == numbers(7, 7)


async def test_an_idle_subscriber_is_told_its_position(node_kind: str, rig: Rig) -> None:
    """A heartbeat, so that a consumer with a narrow filter can store how far it is."""
    subscriber = Subscriber(rig, filter=pb.EventFilter(types=[50001]))
    before = await subscriber.registered()
    await send_to_node(rig, 1)
    inbox = await _inbox_after(rig, before)
    await _nothing_until(subscriber, inbox.latest)


async def test_what_the_inbox_holds_is_told(receiving_rig: Rig) -> None:
    """Its bounds, its size, and whether lightningd is attached."""
    subscriber = Subscriber(receiving_rig)
    before = await subscriber.registered()
    await send_to_node(receiving_rig, 1)
    inbox = await _inbox_after(receiving_rig, before)
    assert inbox.attached
    assert not inbox.error
    assert inbox.count > 0
    assert inbox.size > 0
    assert inbox.oldest.seconds > 1_600_000_000
    everything = Subscriber(receiving_rig, after=inbox.earliest)
    assert await everything.messages(1) == numbers(1, 1)
    assert everything.position == (await receiving_rig.stub.GetInbox(pb.GetInboxRequest())).latest


async def test_a_position_that_is_not_of_this_inbox_is_refused_with_its_reason(rig: Rig) -> None:
    """No text that could move a subscriber or a consumer to a place by chance."""
    await rig.node.peer.send(rig.node.id, b"\x9c\x41")
    latest = (await rig.stub.GetInbox(pb.GetInboxRequest())).latest
    inbox, _, number = latest.partition("-")
    cases = {
        "7": ("INVALID_ARGUMENT", "INVALID_POSITION"),
        "x" * 1000: ("INVALID_ARGUMENT", "INVALID_POSITION"),
        f"{'0' * len(inbox)}-{number}": ("FAILED_PRECONDITION", "POSITION_OF_OTHER_INBOX"),
        f"{inbox}-1000000": ("OUT_OF_RANGE", "POSITION_NOT_REACHED"),
    }
    first = Subscriber(rig, consumer="careful")
    await first.registered()
    for position, expected in cases.items():
        for call in (
            Subscriber(rig, after=position).call.read(),
            rig.stub.ListEvents(pb.ListEventsRequest(after=position)),
            rig.stub.AckCustomMsgs(pb.AckCustomMsgsRequest(consumer="careful", position=position)),
        ):
            assert (await failed(call))[:2] == expected, position


async def test_stored_events_are_listed_page_by_page(receiving_rig: Rig) -> None:
    """Oldest first, each once, filtered; the last page has no token."""
    rig = receiving_rig
    live = Subscriber(rig)
    await live.registered()
    for number in range(10):
        await send_to_node(rig, number, 40001 + number % 2 * 2)
    events = [await live.event() for _ in range(10)]
    request = pb.ListEventsRequest(filter=pb.EventFilter(types=[40001]), page_size=2)
    listed: list[bytes] = []
    pages = 0
    while True:
        page = await rig.stub.ListEvents(request)
        assert len(page.events) <= 2
        listed += [event.message.payload for event in page.events if event.HasField("message")]
        pages += 1
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert listed == numbers(0, 9)[::2]
    assert pages >= 3
    after = pb.ListEventsRequest(after=events[7].position)
    assert [one.message.payload for one in (await rig.stub.ListEvents(after)).events] == numbers(8, 9)


async def test_lists_come_in_pages(receiving_rig: Rig) -> None:
    """Consumers and peers: each once, in order, and a wrong page is refused."""
    rig = receiving_rig
    names = ["a", "b", "c"]
    for name in names:
        await Subscriber(rig, consumer=name).registered()
    first = await rig.stub.ListConsumers(pb.ListConsumersRequest(page_size=2))
    rest = await rig.stub.ListConsumers(
        pb.ListConsumersRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [one.name for one in (*first.consumers, *rest.consumers)] == names
    assert not rest.next_page_token
    peers = await rig.stub.ListPeers(pb.ListPeersRequest(page_size=1))
    assert [one.peer_id for one in peers.peers] == [rig.node.peer.id]
    for request in ({"page_size": -1}, {"page_token": "not base64!"}):
        outcome = await failed(rig.stub.ListPeers(pb.ListPeersRequest(**request)))
        assert outcome[:2] == ("INVALID_ARGUMENT", "INVALID_PAGE")


async def test_another_node_is_not_served_here(rig: Rig) -> None:
    """A request that names our node, and one that names another."""
    ours, other = rig.node.id, rig.node.peer.id
    assert (await rig.stub.GetInfo(pb.GetInfoRequest(node_id=ours))).node.node_id == ours
    for call in (
        rig.stub.GetInfo(pb.GetInfoRequest(node_id=other)),
        rig.stub.ListPeers(pb.ListPeersRequest(node_id=other)),
        rig.stub.ListEvents(pb.ListEventsRequest(node_id=other)),
        Subscriber(rig, node_id=other).call.read(),
    ):
        assert (await failed(call))[:2] == ("NOT_FOUND", "NODE_UNKNOWN")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"filter": pb.EventFilter(peer_ids=[b"no"])}, "INVALID_NODE_ID"),
        ({"filter": pb.EventFilter(peer_ids_hex=["zz"])}, "INVALID_NODE_ID"),
        ({"filter": pb.EventFilter(types=[70_000])}, "INVALID_FILTER"),
        ({"filter": pb.EventFilter(type_ranges=[pb.TypeRange(first=2, last=1)])}, "INVALID_FILTER"),
        ({"filter": pb.EventFilter(types=[40001] * 1001)}, "INVALID_FILTER"),
        ({"consumer": "no spaces"}, "INVALID_CONSUMER"),
    ],
)
async def test_an_invalid_subscription_is_refused(rig: Rig, request_: dict[str, Any], reason: str) -> None:
    """With the field that is wrong."""
    outcome = await failed(Subscriber(rig, **request_).call.read())
    assert outcome[:2] == ("INVALID_ARGUMENT", reason)


async def test_an_unknown_consumer_is_not_found(rig: Rig) -> None:
    """Neither acknowledged nor deleted."""
    latest = (await rig.stub.GetInbox(pb.GetInboxRequest())).latest
    ack = pb.AckCustomMsgsRequest(consumer="nobody", position=latest)
    delete = pb.DeleteConsumerRequest(consumer="nobody")
    for call in (rig.stub.AckCustomMsgs(ack), rig.stub.DeleteConsumer(delete)):
        assert (await failed(call))[:2] == ("NOT_FOUND", "CONSUMER_UNKNOWN")


async def _nothing_until(subscriber: Subscriber, position: str) -> None:
    """Read heartbeats until the subscriber is there; nothing else may come, interruptions aside."""
    while subscriber.position != position:
        response = await subscriber.call.read()
        assert {event.WhichOneof("kind") for event in response.events} <= {"interruption"}
        subscriber.position = response.position


async def _inbox_after(rig: Rig, position: str) -> pb.GetInboxResponse:
    """Wait until the inbox has come further than a position."""
    async with asyncio.timeout(20):
        while True:
            inbox = await rig.stub.GetInbox(pb.GetInboxRequest())
            if inbox.latest not in ("", position):
                return inbox
