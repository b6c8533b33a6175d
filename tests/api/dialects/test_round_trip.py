"""The way of one message: LND client, gateway, node, peer, and back to a Core Lightning client."""

from __future__ import annotations

import pytest

from custommsg_server.api.dialects.protos import cln_pb2, lnd_pb2

from .conftest import Rig, read, registered


@pytest.mark.parametrize("message_type", [32_768, 37_913, 65_535])
@pytest.mark.parametrize("size", [0, 1, 65_533])
async def test_a_message_of_an_lnd_client_returns_to_a_cln_client(
    rig: Rig, message_type: int, size: int
) -> None:
    """The bytes do not change, for all kinds of types and sizes."""
    stream = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    data = (bytes(range(256)) * 256)[:size]
    request = lnd_pb2.SendCustomMessageRequest(peer=rig.peer.id, type=message_type, data=data)
    await rig.lnd.SendCustomMessage(request)
    received = await rig.peer.next_message()
    await rig.peer.send(rig.node.id, received.message)
    returned = await read(stream)
    # Not one assertion: to compare 65,535 bytes in words takes pytest minutes.
    if returned.payload != message_type.to_bytes(2, "big") + data:
        pytest.fail(f"{len(returned.payload)} bytes came back: {returned.payload[:20].hex()}...")
    assert returned.peer_id == rig.peer.id
