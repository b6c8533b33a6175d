"""A subscriber gets the events that its rune permits, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from support import nodes
from support.every_rpc import Metadata, until_serving
from support.gateways import gateway

from .conftest import MakeRune

if TYPE_CHECKING:
    Stub = custommsg_pb2_grpc.CustomMsgServiceAsyncStub


@asynccontextmanager
async def guarded(node: nodes.Node) -> AsyncIterator[Stub]:
    """Run a gateway that requires runes; wait until it is attached."""
    async with (
        gateway(node.rpc_file, insecure=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        await until_serving(channel)
        metadata = _shown(str((await node.call("createrune"))["rune"]))
        while not (await stub.GetInbox(pb.GetInboxRequest(), metadata=metadata)).attached:
            pass
        yield stub


def _shown(rune: str) -> Metadata:
    return (("rune", rune),)


async def seen(node: nodes.Node, stub: Stub, rune: str, request: pb.SubscribeCustomMsgsRequest) -> list[int]:
    """Subscribe, have the peer send messages of four types, and return the received types."""
    all_seeing = str((await node.call("createrune"))["rune"])
    witness = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest(), metadata=_shown(all_seeing))
    call = stub.SubscribeCustomMsgs(request, metadata=_shown(rune))
    for one in (witness, call):
        assert not (await one.read()).events
    for number in (0x9419, 0x941B, 0x7779, 0x9419):
        await node.peer.send(node.id, number.to_bytes(2, "big") + b"\x01")
    sent, last = 0, ""
    while sent < 4:
        response = await witness.read()
        sent, last = sent + len(response.events), response.position
    types: list[int] = []
    position = ""
    while position != last:
        response = await call.read()
        types += [event.message.type for event in response.events if event.HasField("message")]
        position = response.position
    for one in (witness, call):
        one.cancel()
    return types


@pytest.mark.parametrize(
    ("restrictions", "types"),
    [
        ([], [0x9419, 0x941B, 0x7779, 0x9419]),
        ([["method=subscribecustommsg"], ["pnamemsg^9419"]], [0x9419, 0x9419]),
        ([["pnamemsg^9419", "pnamemsg^7779"]], [0x9419, 0x7779, 0x9419]),
        ([["pnametype>37912"], ["pnametype<37916"]], [0x9419, 0x941B, 0x9419]),
        ([["pnamenode_id=02" + "11" * 32]], []),
        ([["pnamemsg^941901"]], []),
    ],
)
async def test_a_rune_holds_a_subscriber_to_types_and_peers(
    embedded: nodes.Node, make_rune: MakeRune, restrictions: list[list[str]], types: list[int]
) -> None:
    """The same condition restricts senders to a type; the position advances past other events."""
    async with guarded(embedded) as stub:
        rune = await make_rune(*restrictions)
        assert await seen(embedded, stub, rune, pb.SubscribeCustomMsgsRequest()) == types


async def test_a_subscription_that_can_never_get_anything_is_refused_at_once(
    embedded: nodes.Node, make_rune: MakeRune
) -> None:
    """Better than a stream that stays empty."""
    async with guarded(embedded) as stub:
        rune = await make_rune(["pnamemsg^9419"])
        request = pb.SubscribeCustomMsgsRequest(
            filter=pb.EventFilter(types=[0x7779], peer_ids=[embedded.peer.id])
        )
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SubscribeCustomMsgs(request, metadata=_shown(rune)).read()
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "parameter msg does not start with 9419" in str(failed.value.details())


async def test_a_rune_with_a_rate_cannot_subscribe_and_says_so_when_it_sends_too_soon(
    embedded: nodes.Node, make_rune: MakeRune
) -> None:
    """OVERLOADED, with a time to try again."""
    async with guarded(embedded) as stub:
        metadata = _shown(await make_rune(["rate=1"]))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest(), metadata=metadata).read()
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=embedded.peer.id, msg_hex="9419ab"))
        assert (await stub.SendCustomMsg(request, metadata=metadata)).status
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SendCustomMsg(request, metadata=metadata)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_each_message_of_a_stream_is_judged(embedded: nodes.Node, make_rune: MakeRune) -> None:
    """Permitted messages are sent in order, others are refused, and the stream continues."""
    async with guarded(embedded) as stub:
        metadata = _shown(await make_rune(["method=sendcustommsg"], ["pnamemsg^9419"]))
        types = (0x9419, 0x7779, 0x9419, 0x941B)
        messages = [
            pb.OutboundMsg(
                number=number,
                peer_id=embedded.peer.id,
                msg=types[number % 4].to_bytes(2, "big") + number.to_bytes(2, "big"),
            )
            for number in range(400)
        ]
        requests = [
            pb.SendCustomMsgStreamRequest(messages=messages[at : at + 25]) for at in range(0, 400, 25)
        ]
        results: dict[int, bool] = {}
        async for response in stub.SendCustomMsgStream(iter(requests), metadata=metadata):
            results |= {result.number: result.HasField("error") for result in response.results}
        assert results == {number: number % 2 == 1 for number in range(400)}
        received = [(await embedded.peer.next_message()).payload for _ in range(200)]
        assert received == [number.to_bytes(2, "big") for number in range(0, 400, 2)]
