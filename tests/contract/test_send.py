"""Sending, as the contract has it, over every kind of node."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pyln.client import RpcError

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.api.status import DETAILS_KEY
from custommsg_server.domain import wire
from support.keys import NOT_A_POINT, node_id

from .conftest import Rig


async def failed(call: Any) -> tuple[str, str, dict[str, str]]:
    """Await a call that fails; return its code, its reason and the reason's metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = dict(caught.value.trailing_metadata() or ())[DETAILS_KEY]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return caught.value.code().name, info.reason, dict(info.metadata)


def to_peer(rig: Rig, **message: Any) -> pb.SendCustomMsgRequest:
    """Make a request to the connected peer."""
    return pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=rig.node.peer.id, **message))


@pytest.mark.parametrize(
    "message",
    [
        {"msg": b"\x9c\x41\xca\xfe"},
        {"msg_hex": "9c41cafe"},
        {"msg_hex": "9C41CAFE"},
        {"typed_msg": pb.TypedMsg(type=40001, payload=b"\xca\xfe")},
    ],
    ids=["bytes", "hex", "upper-case hex", "type and payload"],
)
async def test_a_message_arrives_whichever_way_it_was_given(rig: Rig, message: dict[str, Any]) -> None:
    """Bytes, hex, type and payload: the peer receives the same bytes."""
    answer = await rig.stub.SendCustomMsg(to_peer(rig, **message))
    assert (answer.status, answer.type) == ("Message sent to connectd for delivery", 40001)
    received = await rig.node.peer.next_message()
    assert (received.peer_id, received.message) == (rig.node.id, b"\x9c\x41\xca\xfe")


@pytest.mark.parametrize("size", [2, 3, 1000, 65_534, 65_535])
async def test_messages_of_every_allowed_size_arrive_whole(rig: Rig, size: int) -> None:
    """From the type alone to the limit of BOLT 1."""
    message = (b"\x9c\x41" + bytes(range(256)) * 256)[:size]
    await rig.stub.SendCustomMsg(to_peer(rig, msg=message))
    assert (await rig.node.peer.next_message()).message == message


async def test_messages_to_one_peer_arrive_in_order(rig: Rig) -> None:
    """Each sent after the last was answered, and all of them arrive."""
    for number in range(200):
        await rig.stub.SendCustomMsg(to_peer(rig, typed_msg=_numbered(number)))
    for number in range(200):
        assert (await rig.node.peer.next_message()).payload == number.to_bytes(4, "big")


async def test_a_thousand_concurrent_sends_arrive_once_each(rig: Rig) -> None:
    """None is lost, none is doubled."""
    calls = (rig.stub.SendCustomMsg(to_peer(rig, typed_msg=_numbered(n))) for n in range(1000))
    await asyncio.gather(*calls)
    payloads = [(await rig.node.peer.next_message()).payload for _ in range(1000)]
    assert sorted(payloads) == [n.to_bytes(4, "big") for n in range(1000)]


async def test_validate_only_runs_the_nodes_checks_and_sends_nothing(rig: Rig) -> None:
    """What arrives is the message after it."""
    request = to_peer(rig, msg_hex="9c4101")
    request.validate_only = True
    assert (await rig.stub.SendCustomMsg(request)).status == "Checked, not sent"
    stranger = pb.SendCustomMsgRequest(
        message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"), validate_only=True
    )
    assert (await failed(rig.stub.SendCustomMsg(stranger)))[:2] == ("NOT_FOUND", "PEER_UNKNOWN")
    await rig.stub.SendCustomMsg(to_peer(rig, msg_hex="9c4102"))
    assert (await rig.node.peer.next_message()).payload == b"\x02"


async def test_a_peer_that_the_node_does_not_know_is_not_found(rig: Rig) -> None:
    """A stranger, and the node itself."""
    for unknown in (node_id(), rig.node.id):
        request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=unknown, msg_hex="9c41"))
        assert (await failed(rig.stub.SendCustomMsg(request)))[:2] == ("NOT_FOUND", "PEER_UNKNOWN")


async def test_a_peer_without_a_channel_is_unknown_once_it_has_left(rig: Rig) -> None:
    """lightningd forgets it."""
    await rig.node.peer.disconnect(rig.node.id)
    async with asyncio.timeout(10):
        while (await rig.stub.ListPeers(pb.ListPeersRequest())).peers:
            pass
    outcome = await failed(rig.stub.SendCustomMsg(to_peer(rig, msg_hex="9c41")))
    assert outcome[:2] == ("NOT_FOUND", "PEER_UNKNOWN")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"peer_id": NOT_A_POINT, "msg_hex": "9c41"}, "INVALID_NODE_ID"),
        ({"peer_id": b"", "msg_hex": "9c41"}, "INVALID_NODE_ID"),
        ({"msg_hex": "9c41"}, "INVALID_NODE_ID"),
        ({"peer_id_hex": "02" * 34, "msg_hex": "9c41"}, "INVALID_NODE_ID"),
        ({"peer_id": node_id()}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "msg": b""}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "msg": b"\x9c"}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "msg": b"\x9c" * 65_536}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "msg_hex": "9c4"}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "msg_hex": "9c 41"}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "typed_msg": pb.TypedMsg(type=65_536)}, "INVALID_MESSAGE"),
        ({"peer_id": node_id(), "typed_msg": pb.TypedMsg(type=18)}, "INTERNAL_MESSAGE_TYPE"),
    ],
)
async def test_poison_is_refused_and_the_node_lives(rig: Rig, request_: dict[str, Any], reason: str) -> None:
    """What lightningd would refuse or die of never gets to it: afterwards it still relays."""
    outcome = await failed(
        rig.stub.SendCustomMsg(pb.SendCustomMsgRequest(message=pb.OutboundMsg(**request_)))
    )
    assert outcome[:2] == ("INVALID_ARGUMENT", reason)
    await rig.stub.SendCustomMsg(to_peer(rig, msg_hex="9c41"))
    assert (await rig.node.peer.next_message()).type == 40001


async def test_the_gateway_and_the_node_agree_on_every_type(rig: Rig) -> None:
    """For each of the first 1,024 types and some beyond: the gateway refuses what the node refuses."""
    peer = rig.node.peer.id.hex()
    rpc = rig.node.rpc()

    def refused() -> set[int]:
        found = set()
        for number in [*range(1024), 19530, 32767, 32768, 37913, 65535]:
            try:
                rpc.call(
                    "check",
                    {"command_to_check": "sendcustommsg", "node_id": peer, "msg": f"{number:04x}00"},
                )
            except RpcError as error:
                assert f"type {number} ({wire.INTERNAL_TYPES[number]})" in error.error["message"]
                found.add(number)
        return found

    assert await asyncio.to_thread(refused) == set(wire.INTERNAL_TYPES)


async def test_peers_and_the_node_are_described(rig: Rig) -> None:
    """What ListPeers and GetInfo say is what the node says."""
    [peer] = (await rig.stub.ListPeers(pb.ListPeersRequest())).peers
    assert (peer.peer_id, peer.peer_id_hex) == (rig.node.peer.id, rig.node.peer.id.hex())
    assert (peer.connected, peer.num_channels) == (True, 0)
    assert peer.address.startswith("127.0.0.1:")
    info = await rig.stub.GetInfo(pb.GetInfoRequest())
    described = await rig.node.call("getinfo")
    assert info.node_link_up
    assert (info.node.node_id_hex, info.node.alias) == (described["id"], described["alias"])
    assert (info.node.network, info.node.version) == ("regtest", described["version"])
    assert info.gateway_version


def _numbered(number: int) -> pb.TypedMsg:
    return pb.TypedMsg(type=40001, payload=number.to_bytes(4, "big"))
