"""Receiving, as the contract has it: over every kind of node, and both ways to attach."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb

from .conftest import Stage
from .test_send import failed

Request = pb.SubscribeCustomMsgsRequest


class Subscriber:
    """A subscription through the stub, read event by event."""

    def __init__(self, stage: Stage, **request: Any) -> None:
        self.call = stage.stub.SubscribeCustomMsgs(Request(**request))
        self.position = 0
        self._events: list[pb.Event] = []

    async def registered(self) -> dict[str, str]:
        """Wait until whatever arrives will be delivered; return what the gateway says of the start."""
        metadata = dict(await self.call.initial_metadata())
        self.position = int(metadata["custommsg-position"])
        return {key: str(value) for key, value in metadata.items()}

    async def event(self) -> pb.Event:
        """Return the next event that is no interruption."""
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


async def send_to_node(stage: Stage, number: int, message_type: int = 40001) -> None:
    """Have the peer send a numbered message to the node."""
    await stage.node.peer.send(stage.node.id, message_type.to_bytes(2, "big") + number.to_bytes(4, "big"))


def numbers(first: int, last: int) -> list[bytes]:
    """Return the payloads of numbered messages, both ends included."""
    return [number.to_bytes(4, "big") for number in range(first, last + 1)]


async def test_a_subscriber_gets_what_peers_send(receiving_stage: Stage) -> None:
    """Peer, type and bytes, as they were sent, in order; sequence numbers count up."""
    stage = receiving_stage
    subscriber = Subscriber(stage)
    await subscriber.registered()
    for number in range(50):
        await send_to_node(stage, number)
    events = [await subscriber.event() for _ in range(50)]
    assert [event.message.payload for event in events] == numbers(0, 49)
    assert {(event.node_id, event.message.type) for event in events} == {(stage.node.peer.id, 40001)}
    assert {event.node_id_hex for event in events} == {stage.node.peer.id.hex()}
    sequences = [event.sequence for event in events]
    assert sequences == list(range(sequences[0], sequences[0] + 50))
    assert all(event.time.seconds > 1_600_000_000 for event in events)


async def test_a_message_of_the_largest_size_arrives_whole(receiving_stage: Stage) -> None:
    """65,535 bytes."""
    subscriber = Subscriber(receiving_stage)
    await subscriber.registered()
    payload = bytes(range(256)) * 255 + bytes(253)
    await receiving_stage.node.peer.send(receiving_stage.node.id, b"\x9c\x41" + payload)
    assert await subscriber.messages(1) == [payload]


async def test_backlog_and_live_join_without_a_gap(receiving_stage: Stage) -> None:
    """From the beginning, after a position, and live: each gets what it asked for, once, in order."""
    stage = receiving_stage
    live = Subscriber(stage)
    await live.registered()
    for number in range(20):
        await send_to_node(stage, number)
    first = [await live.event() for _ in range(20)]
    everything = Subscriber(stage, from_beginning=True)
    resumed = Subscriber(stage, after=first[9].sequence)
    for number in range(20, 40):
        await send_to_node(stage, number)
    assert await live.messages(20) == numbers(20, 39)
    assert await everything.messages(40) == numbers(0, 39)
    assert await resumed.messages(30) == numbers(10, 39)


async def test_filters_by_type_and_by_peer(receiving_stage: Stage) -> None:
    """Types one by one and as ranges; a peer that never writes."""
    stage = receiving_stage
    by_type = Subscriber(stage, types=[40003], type_ranges=[pb.TypeRange(first=50001, last=50003)])
    by_peer = Subscriber(stage, node_ids=[stage.node.peer.id])
    of_another = Subscriber(stage, node_ids_hex=[stage.node.id.hex()])
    for subscriber in (by_type, by_peer, of_another):
        await subscriber.registered()
    for number, message_type in enumerate([40001, 40003, 50001, 50003, 50005]):
        await send_to_node(stage, number, message_type)
    assert await by_type.messages(3) == numbers(1, 3)
    assert await by_peer.messages(5) == numbers(0, 4)
    await _nothing_until(of_another, by_peer.position)


async def test_peers_coming_and_going_are_events_of_the_same_sequence(receiving_stage: Stage) -> None:
    """So a protocol can tell a quiet peer from a gone one."""
    stage = receiving_stage
    subscriber = Subscriber(stage, include_peer_events=True)
    await subscriber.registered()
    await send_to_node(stage, 1)
    assert (await subscriber.event()).message.payload == numbers(1, 1)[0]
    await stage.node.peer.disconnect(stage.node.id)
    gone = await subscriber.event()
    await stage.node.peer.connect(f"{stage.node.id.hex()}@{stage.node.address}")
    back = await subscriber.event()
    assert [event.WhichOneof("kind") for event in (gone, back)] == ["peer_disconnected", "peer_connected"]
    assert {gone.node_id, back.node_id} == {stage.node.peer.id}


async def test_a_named_consumer_resumes_after_what_it_acknowledged(receiving_stage: Stage) -> None:
    """At least once: what was delivered and not acknowledged is delivered again."""
    stage = receiving_stage
    first = Subscriber(stage, consumer="orders")
    await first.registered()
    for number in range(5):
        await send_to_node(stage, number)
    events = [await first.event() for _ in range(5)]
    ack = pb.AckCustomMsgsRequest(consumer="orders", sequence=events[2].sequence)
    assert (await stage.stub.AckCustomMsgs(ack)).position == events[2].sequence
    first.call.cancel()
    second = Subscriber(stage, consumer="orders")
    assert await second.messages(2) == numbers(3, 4)
    [consumer] = (await stage.stub.ListConsumers(pb.ListConsumersRequest())).consumers
    assert (consumer.name, consumer.position, consumer.lag) == ("orders", events[2].sequence, 2)
    lower = pb.AckCustomMsgsRequest(consumer="orders", sequence=1)
    assert (await stage.stub.AckCustomMsgs(lower)).position == events[2].sequence
    await stage.stub.DeleteConsumer(pb.DeleteConsumerRequest(consumer="orders"))
    assert not (await stage.stub.ListConsumers(pb.ListConsumersRequest())).consumers


async def test_a_new_consumer_misses_nothing_before_its_first_acknowledgement(receiving_stage: Stage) -> None:
    """Its position is kept from its first subscription on, not from its first acknowledgement."""
    stage = receiving_stage
    first = Subscriber(stage, consumer="new")
    await first.registered()
    first.call.cancel()
    await send_to_node(stage, 7)
    assert await Subscriber(stage, consumer="new").messages(1) == numbers(7, 7)


async def test_an_idle_subscriber_is_told_its_position(node_kind: str, stage: Stage) -> None:
    """A heartbeat, so that a consumer with a narrow filter can store how far it is."""
    subscriber = Subscriber(stage, types=[50001])
    await subscriber.registered()
    await send_to_node(stage, 1)
    inbox = await _latest(stage, subscriber.position + 1)
    await _nothing_until(subscriber, inbox.latest)


async def test_what_the_inbox_holds_is_told(receiving_stage: Stage) -> None:
    """Its range, its size, and whether lightningd is attached."""
    await send_to_node(receiving_stage, 1)
    inbox = await _latest(receiving_stage, 1)
    assert inbox.attached
    assert not inbox.error
    assert inbox.earliest == 1
    assert inbox.count == inbox.latest
    assert inbox.size > 0
    assert inbox.oldest.seconds > 1_600_000_000
    assert inbox.inbox_id


async def test_a_position_of_another_inbox_is_expired(stage: Stage) -> None:
    """A number beyond the newest, or the id of another inbox: never a guess."""
    for request in ({"after": 1_000_000}, {"after": 0, "inbox_id": "another"}):
        outcome = await failed(Subscriber(stage, **request).call.read())
        assert outcome[:2] == ("OUT_OF_RANGE", "POSITION_EXPIRED")
        assert "latest" in outcome[2]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"node_ids": [b"no"]}, "INVALID_NODE_ID"),
        ({"node_ids_hex": ["zz"]}, "INVALID_NODE_ID"),
        ({"types": [70_000]}, "INVALID_FILTER"),
        ({"type_ranges": [pb.TypeRange(first=2, last=1)]}, "INVALID_FILTER"),
        ({"consumer": "no spaces"}, "INVALID_CONSUMER"),
    ],
)
async def test_a_wrong_wish_is_refused(stage: Stage, request_: dict[str, Any], reason: str) -> None:
    """With the field at fault."""
    outcome = await failed(Subscriber(stage, **request_).call.read())
    assert outcome[:2] == ("INVALID_ARGUMENT", reason)


async def test_an_unknown_consumer_is_not_found(stage: Stage) -> None:
    """Neither acknowledged nor deleted."""
    ack = pb.AckCustomMsgsRequest(consumer="nobody", sequence=0)
    delete = pb.DeleteConsumerRequest(consumer="nobody")
    for call in (stage.stub.AckCustomMsgs(ack), stage.stub.DeleteConsumer(delete)):
        assert (await failed(call))[:2] == ("NOT_FOUND", "CONSUMER_UNKNOWN")


async def _nothing_until(subscriber: Subscriber, position: int) -> None:
    """Read heartbeats until the subscriber is there; nothing else may come, interruptions aside."""
    while subscriber.position < position:
        response = await subscriber.call.read()
        assert {event.WhichOneof("kind") for event in response.events} <= {"interruption"}
        subscriber.position = response.position


async def _latest(stage: Stage, sequence: int) -> pb.GetInboxResponse:
    """Wait until the inbox has come so far."""
    async with asyncio.timeout(20):
        while True:
            inbox = await stage.stub.GetInbox(pb.GetInboxRequest())
            if inbox.latest >= sequence:
                return inbox
