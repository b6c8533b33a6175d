"""The outbox, as the contract has it, over every kind of node."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api.stream import MAX_MESSAGES
from custommsg_testing import devnode
from support import nodes
from support.keys import node_id

from .conftest import Rig
from .test_send import failed

S = pb.OutboxState
WAITING, SENT = S.OUTBOX_STATE_WAITING_FOR_PEER, S.OUTBOX_STATE_SENT


def for_peer(peer_id: bytes, number: int = 0, key: str = "", **more: Any) -> pb.OutboxMsg:
    """Make a message that holds a number."""
    outbound = pb.OutboundMsg(
        peer_id=peer_id, msg=b"\x9c\x41" + number.to_bytes(4, "big"), number=number, idempotency_key=key
    )
    return pb.OutboxMsg(outbound=outbound, **more)


async def enqueue(rig: Rig, message: pb.OutboxMsg) -> pb.EnqueueCustomMsgResponse:
    """Enqueue a message."""
    response: pb.EnqueueCustomMsgResponse = await rig.stub.EnqueueCustomMsg(
        pb.EnqueueCustomMsgRequest(message=message)
    )
    return response


async def entry_of(rig: Rig, entry_id: str) -> pb.OutboxEntry:
    """Return an entry."""
    response = await rig.stub.GetOutboxEntry(pb.GetOutboxEntryRequest(entry_id=entry_id))
    entry: pb.OutboxEntry = response.entry
    return entry


async def until(rig: Rig, entry_id: str, state: S.ValueType) -> pb.OutboxEntry:
    """Wait until an entry is in a state."""
    async with asyncio.timeout(20):
        while (entry := await entry_of(rig, entry_id)).state != state:
            await asyncio.sleep(0.01)
    return entry


async def numbers(peer: devnode.DevNode, count: int) -> list[int]:
    """Return the numbers in the next messages that a peer receives."""
    return [int.from_bytes((await peer.next_message()).payload, "big") for _ in range(count)]


@asynccontextmanager
async def absent_peer(directory: Path) -> AsyncIterator[tuple[bytes, Callable[[], Any]]]:
    """Yield the id of a peer that does not run, and what runs it."""
    async with devnode.run(directory) as peer:
        peer_id = peer.id
    yield peer_id, lambda: devnode.run(directory)


@pytest.fixture
async def absent(short_path: Path) -> AsyncIterator[tuple[bytes, Callable[[], Any]]]:
    """Return a peer that is not there yet."""
    async with absent_peer(short_path / "late") as peer:
        yield peer


async def connect(peer: devnode.DevNode, node: nodes.Node) -> None:
    """Have a peer connect to the node."""
    await peer.connect(f"{node.id.hex()}@{node.address}")


async def test_a_peer_that_is_started_later_gets_what_waited_in_order(
    rig: Rig, absent: tuple[bytes, Callable[[], Any]]
) -> None:
    """From calls and from a stream, as they were enqueued; each entry is SENT then, and an event tells."""
    peer_id, run = absent
    events = rig.stub.SubscribeCustomMsgs(
        pb.SubscribeCustomMsgsRequest(filter=pb.EventFilter(include_outbox_events=True))
    )
    await events.read()
    ids = [(await enqueue(rig, for_peer(peer_id, n))).entry_id for n in range(3)]
    stream = rig.stub.EnqueueCustomMsgStream()
    for first in range(3, 103, 10):
        messages = [for_peer(peer_id, n) for n in range(first, first + 10)]
        await stream.write(pb.EnqueueCustomMsgStreamRequest(messages=messages))
    await stream.done_writing()
    results = [result async for response in stream for result in response.results]
    assert [result.number for result in results] == list(range(3, 103))
    ids += [result.entry.entry_id for result in results]
    assert len(set(ids)) == 103
    assert (await entry_of(rig, ids[0])).state == WAITING
    async with run() as peer:
        await connect(peer, rig.node)
        assert await numbers(peer, 103) == list(range(103))
        told: list[tuple[str, int, bytes]] = []
        while len(told) < 103:
            for event in (await events.read()).events:
                if event.WhichOneof("kind") == "outbox_entry_ended":
                    ended = event.outbox_entry_ended
                    assert ended.type == 40001
                    told.append((ended.entry_id, ended.state, event.peer_id))
        assert told == [(one, SENT, peer_id) for one in ids]
    entry = await entry_of(rig, ids[-1])
    assert (entry.state, entry.attempts, entry.peer_id) == (SENT, 1, peer_id)
    assert entry.message == pb.TypedMsg(type=40001, payload=(102).to_bytes(4, "big"))
    events.cancel()


async def test_a_connected_peer_gets_it_at_once(rig: Rig) -> None:
    """No waiting for anything."""
    response = await enqueue(rig, for_peer(rig.node.peer.id, 7))
    assert await numbers(rig.node.peer, 1) == [7]
    await until(rig, response.entry_id, SENT)


async def test_a_key_is_one_entry_and_one_message_for_a_hundred_callers_at_once(
    rig: Rig, absent: tuple[bytes, Callable[[], Any]]
) -> None:
    """All get the same entry; another message under the key is refused."""
    peer_id, run = absent
    key = str(uuid.uuid4())
    responses = await asyncio.gather(*(enqueue(rig, for_peer(peer_id, 1, key)) for _ in range(100)))
    assert len({response.entry_id for response in responses}) == 1
    assert sorted(response.existed for response in responses) == [False, *[True] * 99]
    assert (await failed(enqueue(rig, for_peer(peer_id, 2, key))))[:2] == (
        "ALREADY_EXISTS",
        "IDEMPOTENCY_KEY_REUSED",
    )
    await enqueue(rig, for_peer(peer_id, 3))
    async with run() as peer:
        await connect(peer, rig.node)
        assert await numbers(peer, 2) == [1, 3]
        await until(rig, responses[0].entry_id, SENT)
    again = await enqueue(rig, for_peer(peer_id, 1, key))
    assert (again.entry_id, again.state, again.existed) == (responses[0].entry_id, SENT, True)
    by_key = await rig.stub.GetOutboxEntry(pb.GetOutboxEntryRequest(idempotency_key=key))
    assert by_key.entry.id == again.entry_id


async def test_a_direct_send_with_a_key_is_sent_once_for_a_hundred_callers(rig: Rig) -> None:
    """On calls and on streams; the peer gets it once, and everybody gets OK."""
    outbound = for_peer(rig.node.peer.id, 5, "key").outbound
    request = pb.SendCustomMsgRequest(message=outbound)
    answers = await asyncio.gather(*(rig.stub.SendCustomMsg(request) for _ in range(100)))
    assert len(answers) == 100
    stream = rig.stub.SendCustomMsgStream()
    other = for_peer(rig.node.peer.id, 6, "other").outbound
    plain = for_peer(rig.node.peer.id, 7).outbound
    await stream.write(pb.SendCustomMsgStreamRequest(messages=[outbound, other, plain, other]))
    await stream.write(pb.SendCustomMsgStreamRequest(messages=[for_peer(rig.node.peer.id, 8).outbound]))
    await stream.done_writing()
    results = [result async for response in stream for result in response.results]
    assert sorted(result.number for result in results) == [5, 6, 6, 7, 8]
    assert not any(result.HasField("error") for result in results)
    assert await numbers(rig.node.peer, 4) == [5, 6, 7, 8]
    entry = (await rig.stub.GetOutboxEntry(pb.GetOutboxEntryRequest(idempotency_key="key"))).entry
    assert (entry.state, entry.direct) == (SENT, True)


async def test_a_key_of_a_message_that_was_not_sent_can_be_used_again(
    rig: Rig, absent: tuple[bytes, Callable[[], Any]]
) -> None:
    """The peer was not there: nothing was sent, so a retry sends."""
    peer_id, run = absent
    request = pb.SendCustomMsgRequest(message=for_peer(peer_id, 1, "key").outbound)
    assert (await failed(rig.stub.SendCustomMsg(request)))[1] in ("PEER_UNKNOWN", "PEER_NOT_CONNECTED")
    async with run() as peer:
        await connect(peer, rig.node)
        await until_known(rig, peer_id)
        await rig.stub.SendCustomMsg(request)
        await rig.stub.SendCustomMsg(request)
        await rig.stub.SendCustomMsg(pb.SendCustomMsgRequest(message=for_peer(peer_id, 2, "second").outbound))
        assert await numbers(peer, 2) == [1, 2]


async def until_known(rig: Rig, peer_id: bytes) -> None:
    """Wait until the node lists a peer as connected."""
    async with asyncio.timeout(20):
        while not any(
            peer.peer_id == peer_id and peer.connected
            for peer in (await rig.stub.ListPeers(pb.ListPeersRequest())).peers
        ):
            await asyncio.sleep(0.01)


async def test_what_expires_is_not_sent(rig: Rig, absent: tuple[bytes, Callable[[], Any]]) -> None:
    """By a time, and by a duration; what was enqueued after it is sent."""
    peer_id, run = absent
    soon = Timestamp()
    soon.FromNanoseconds(time.time_ns() + 200_000_000)
    one = await enqueue(rig, for_peer(peer_id, 1, ttl=Duration(nanos=200_000_000)))
    two = await enqueue(rig, for_peer(peer_id, 2, expire_time=soon))
    await enqueue(rig, for_peer(peer_id, 3, ttl=Duration(seconds=3600)))
    for response in (one, two):
        await until(rig, response.entry_id, S.OUTBOX_STATE_EXPIRED)
    async with run() as peer:
        await connect(peer, rig.node)
        assert await numbers(peer, 1) == [3]


async def test_what_is_cancelled_is_not_sent(rig: Rig, absent: tuple[bytes, Callable[[], Any]]) -> None:
    """By id and by key, again and again; what was sent cannot be cancelled."""
    peer_id, run = absent
    one = await enqueue(rig, for_peer(peer_id, 1))
    await enqueue(rig, for_peer(peer_id, 2, "key"))
    three = await enqueue(rig, for_peer(peer_id, 3))
    for request in (
        pb.CancelOutboxEntryRequest(entry_id=one.entry_id),
        pb.CancelOutboxEntryRequest(idempotency_key="key"),
        pb.CancelOutboxEntryRequest(idempotency_key="key"),
    ):
        cancelled = await rig.stub.CancelOutboxEntry(request)
        assert cancelled.entry.state == S.OUTBOX_STATE_CANCELLED
    async with run() as peer:
        await connect(peer, rig.node)
        assert await numbers(peer, 1) == [3]
        await until(rig, three.entry_id, SENT)
    cancel = rig.stub.CancelOutboxEntry(pb.CancelOutboxEntryRequest(entry_id=three.entry_id))
    assert await failed(cancel) == ("FAILED_PRECONDITION", "ENTRY_NOT_WAITING", {"state": "SENT"})
    for method, kind in (
        (rig.stub.CancelOutboxEntry, pb.CancelOutboxEntryRequest),
        (rig.stub.GetOutboxEntry, pb.GetOutboxEntryRequest),
    ):
        for given in ({"entry_id": "x"}, {"idempotency_key": "unknown"}, {}):
            assert (await failed(method(kind(**given))))[:2] == ("NOT_FOUND", "ENTRY_UNKNOWN")  # type: ignore[operator]


async def test_the_outbox_is_listed_in_pages_and_by_state(
    rig: Rig, absent: tuple[bytes, Callable[[], Any]]
) -> None:
    """Each entry once, oldest first."""
    peer_id, _ = absent
    sent = await enqueue(rig, for_peer(rig.node.peer.id, 0))
    await until(rig, sent.entry_id, SENT)
    ids = [(await enqueue(rig, for_peer(peer_id, n))).entry_id for n in range(1, 8)]

    async def listed(**wanted: Any) -> list[str]:
        found, token = [], ""
        while True:
            page = await rig.stub.ListOutbox(pb.ListOutboxRequest(page_size=3, page_token=token, **wanted))
            found += [entry.id for entry in page.entries]
            token = page.next_page_token
            if not token:
                return found

    assert await listed() == [sent.entry_id, *ids]
    assert await listed(states=[SENT]) == [sent.entry_id]
    assert await listed(states=[WAITING], peer_ids_hex=[peer_id.hex()]) == ids
    assert await listed(peer_ids=[node_id(9)]) == []
    entry = await entry_of(rig, ids[0])
    info = await rig.stub.GetInfo(pb.GetInfoRequest())
    assert entry.node_id == info.node.node_id
    assert entry.expire_time.seconds > time.time()


async def test_a_message_that_the_node_refuses_fails_and_holds_nothing_up(rig: Rig) -> None:
    """It is checked when it is enqueued; so nothing of this kind is stored."""
    bad = pb.OutboxMsg(outbound=pb.OutboundMsg(peer_id=rig.node.peer.id, msg=b"\x00\x12\x00"))
    assert (await failed(enqueue(rig, bad)))[:2] == ("INVALID_ARGUMENT", "INTERNAL_MESSAGE_TYPE")
    stream = rig.stub.EnqueueCustomMsgStream()
    good = for_peer(rig.node.peer.id, 1)
    await stream.write(pb.EnqueueCustomMsgStreamRequest(messages=[bad, good]))
    await stream.done_writing()
    results = [result async for response in stream for result in response.results]
    assert [result.WhichOneof("outcome") for result in results] == ["error", "entry"]
    assert results[0].reason == pb.REASON_INTERNAL_MESSAGE_TYPE


async def test_a_request_that_is_too_large_ends_a_stream_after_the_results_of_what_was_read(rig: Rig) -> None:
    """What was enqueued before it is known to the caller, as on the other stream."""
    stream = rig.stub.EnqueueCustomMsgStream()
    for number in range(20):
        await stream.write(pb.EnqueueCustomMsgStreamRequest(messages=[for_peer(node_id(9), number)]))
    await stream.write(pb.EnqueueCustomMsgStreamRequest(messages=[pb.OutboxMsg()] * (MAX_MESSAGES + 1)))
    results: list[Any] = []

    async def read() -> None:
        async for response in stream:
            results.extend(response.results)

    with pytest.raises(grpc.aio.AioRpcError, match="2,048 are allowed"):
        await read()
    assert [result.number for result in results] == list(range(20))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ttl": Duration(seconds=-1)}, "INVALID_EXPIRY"),
        ({"ttl": Duration(seconds=10**9)}, "INVALID_EXPIRY"),
        ({"expire_time": Timestamp(seconds=1)}, "INVALID_EXPIRY"),
        ({"expire_time": Timestamp(seconds=2**62)}, "INVALID_EXPIRY"),
        ({"key": "a b"}, "INVALID_IDEMPOTENCY_KEY"),
        ({"key": "x" * 101}, "INVALID_IDEMPOTENCY_KEY"),
        ({"key": "ä"}, "INVALID_IDEMPOTENCY_KEY"),
    ],
)
async def test_what_is_invalid_is_refused(rig: Rig, more: dict[str, Any], reason: str) -> None:
    """Nothing is stored."""
    call = enqueue(rig, for_peer(rig.node.peer.id, **more))
    assert (await failed(call))[:2] == ("INVALID_ARGUMENT", reason)
    assert not (await rig.stub.ListOutbox(pb.ListOutboxRequest())).entries


async def test_messages_of_an_outbox_event_can_be_filtered(rig: Rig) -> None:
    """By type, as messages; and only who asks gets them."""
    both = pb.EventFilter(include_outbox_events=True, types=[40001])
    other = pb.EventFilter(include_outbox_events=True, types=[40003])
    plain = pb.EventFilter(include_peer_events=True)
    response = await enqueue(rig, for_peer(rig.node.peer.id, 1))
    await until(rig, response.entry_id, SENT)

    async def kinds(wanted: pb.EventFilter) -> set[str | None]:
        page = await rig.stub.ListEvents(pb.ListEventsRequest(filter=wanted, page_size=1000))
        return {event.WhichOneof("kind") for event in page.events}

    async with asyncio.timeout(10):
        while "outbox_entry_ended" not in await kinds(both):
            await asyncio.sleep(0.01)
    assert "outbox_entry_ended" not in await kinds(other)
    assert "outbox_entry_ended" not in await kinds(plain)


async def test_a_stream_that_is_cancelled_leaves_what_was_answered(rig: Rig) -> None:
    """What has a result is in the outbox."""
    stream = rig.stub.EnqueueCustomMsgStream()
    messages = [for_peer(node_id(9), n) for n in range(50)]
    await stream.write(pb.EnqueueCustomMsgStreamRequest(messages=messages))
    response = await stream.read()
    assert response is not grpc.aio.EOF
    stream.cancel()
    page = await rig.stub.ListOutbox(pb.ListOutboxRequest())
    assert [entry.id for entry in page.entries] == [one.entry.entry_id for one in response.results]
