"""Runes at the gateway's door, over every kind of node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from support.gateways import gateway

from .conftest import Rig, called, run_node
from .test_send import failed


@pytest.fixture
async def guarded_rig(node_kind: str, short_path: Path) -> AsyncIterator[Rig]:
    """Run a node of that kind with a peer, and a gateway that asks for runes."""
    async with (
        run_node(node_kind, short_path) as node,
        gateway(node.rpc_file) as open_door,
        called(node, open_door) as rig,
        gateway(
            node.rpc_file,
            insecure=False,
            receive=False,
            data_dir=short_path / "second",
            rune_check_interval=0.2,
        ) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Rig(rig.node, address, type(rig.stub)(channel))


async def shown(rig: Rig, *restrictions: list[str]) -> tuple[tuple[str, str], ...]:
    """Make a rune; return the metadata that show it."""
    return (("rune", str((await rig.node.call("createrune", restrictions=list(restrictions)))["rune"])),)


def request(rig: Rig, message_type: int = 0x9419) -> pb.SendCustomMsgRequest:
    """Return a request to send."""
    return pb.SendCustomMsgRequest(
        message=pb.OutboundMsg(peer_id=rig.node.peer.id, msg=message_type.to_bytes(2, "big") + b"hello")
    )


async def test_a_rune_is_held_to_what_it_says(guarded_rig: Rig) -> None:
    """None, foreign, narrow, blacklisted: the documented code and the node's reason."""
    rig, send = guarded_rig, guarded_rig.stub.SendCustomMsg
    narrow = await shown(rig, ["method=sendcustommsg"], ["pnamemsg^9419"])

    async def outcome(call: Any) -> tuple[str, str]:
        return (await failed(call))[:2]

    while True:  # until the link to the node is up
        try:
            assert (await send(request(rig), metadata=narrow)).type == 0x9419
            break
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    none = ("UNAUTHENTICATED", "NO_CREDENTIAL")
    assert await outcome(send(request(rig))) == none
    for wrong in ("AAAA" + narrow[0][1][4:], "A" * 60, "no rune"):
        assert await outcome(send(request(rig), metadata=(("rune", wrong),))) == none
    refused = ("PERMISSION_DENIED", "NOT_PERMITTED")
    assert await outcome(send(request(rig, 0x7779), metadata=narrow)) == refused
    assert await outcome(rig.stub.ListPeers(pb.ListPeersRequest(), metadata=narrow)) == refused
    by_peer = await shown(rig, ["pnamenode_id=02" + "11" * 32])
    assert await outcome(send(request(rig), metadata=by_peer)) == refused
    rated = await shown(rig, ["rate=1"])
    assert (await send(request(rig), metadata=rated)).status
    assert await outcome(send(request(rig), metadata=rated)) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    await rig.node.call("blacklistrune", start=0, end=100)
    while True:  # until the gateway asks again
        try:
            await send(request(rig), metadata=narrow)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            break
    assert await outcome(send(request(rig), metadata=narrow)) == none
    received = [(await rig.node.peer.next_message()).type for _ in range(2)]
    assert received == [0x9419, 0x9419]
