"""Sending through the dialects."""

from __future__ import annotations

from typing import Any

import pytest

from custommsg_server.api.dialects.protos import cln_pb2, lnd_pb2
from support.keys import NOT_A_POINT, node_id

from .conftest import Rig, failure

MESSAGE = b"\x94\x19\xca\xfe"


async def test_a_cln_client_sends_as_to_lightningd(rig: Rig) -> None:
    """The message includes its type, and the answer is lightningd's."""
    request = cln_pb2.SendcustommsgRequest(node_id=rig.peer.id, msg=MESSAGE)
    assert (await rig.cln.SendCustomMsg(request)).status == "Message sent to connectd for delivery"
    assert (await rig.peer.next_message()).message == MESSAGE


async def test_an_lnd_client_sends_as_to_lnd(rig: Rig) -> None:
    """Type and data are separate fields."""
    request = lnd_pb2.SendCustomMessageRequest(peer=rig.peer.id, type=37913, data=b"\xca\xfe")
    assert (await rig.lnd.SendCustomMessage(request)).status
    assert (await rig.peer.next_message()).message == MESSAGE


@pytest.mark.parametrize(
    ("node_id", "msg", "expected"),
    [
        (node_id(), MESSAGE, ("NOT_FOUND", "PEER_UNKNOWN")),
        (NOT_A_POINT, MESSAGE, ("INVALID_ARGUMENT", "INVALID_NODE_ID")),
        (b"", MESSAGE, ("INVALID_ARGUMENT", "INVALID_NODE_ID")),
        (node_id(), b"", ("INVALID_ARGUMENT", "INVALID_MESSAGE")),
        (node_id(), b"\x94", ("INVALID_ARGUMENT", "INVALID_MESSAGE")),
        (node_id(), b"\x94" * 65_536, ("INVALID_ARGUMENT", "INVALID_MESSAGE")),
        (node_id(), b"\x00\x12", ("INVALID_ARGUMENT", "INTERNAL_MESSAGE_TYPE")),
    ],
)
async def test_a_cln_client_learns_what_went_wrong(
    rig: Rig, node_id: bytes, msg: bytes, expected: tuple[str, str]
) -> None:
    """cln-grpc answers all errors with UNKNOWN; here code and reason differ."""
    call = rig.cln.SendCustomMsg(cln_pb2.SendcustommsgRequest(node_id=node_id, msg=msg))
    assert (await failure(call))[:2] == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"peer": NOT_A_POINT, "type": 37913}, ("INVALID_ARGUMENT", "INVALID_NODE_ID")),
        ({"type": 37913}, ("INVALID_ARGUMENT", "INVALID_NODE_ID")),
        ({"peer": node_id(), "type": 37913, "data": bytes(65_534)}, ("INVALID_ARGUMENT", "INVALID_MESSAGE")),
        ({"peer": node_id(), "type": 65_536}, ("INVALID_ARGUMENT", "INVALID_MESSAGE")),
        ({"peer": node_id(), "type": 18}, ("INVALID_ARGUMENT", "INTERNAL_MESSAGE_TYPE")),
    ],
)
async def test_an_lnd_client_learns_what_went_wrong(
    rig: Rig, request_: dict[str, Any], expected: tuple[str, str]
) -> None:
    """As everywhere in the gateway, messages that could harm the node are refused."""
    call = rig.lnd.SendCustomMessage(lnd_pb2.SendCustomMessageRequest(**request_))
    assert (await failure(call))[:2] == expected


async def test_a_peer_that_is_not_connected_is_not_found_in_lnds_words(rig: Rig) -> None:
    """LND has the same answer for unknown and disconnected peers; the reasons differ."""
    rig.node.remember(rig.peer.id)
    await rig.node.disconnect(rig.peer.id)
    for peer, reason in ((node_id(), "PEER_UNKNOWN"), (rig.peer.id, "PEER_NOT_CONNECTED")):
        call = rig.lnd.SendCustomMessage(lnd_pb2.SendCustomMessageRequest(peer=peer, type=37913))
        assert await failure(call) == ("NOT_FOUND", reason, "peer is not connected")


async def test_lnd_refuses_types_that_are_not_custom(rig: Rig) -> None:
    """With LND's text."""
    call = rig.lnd.SendCustomMessage(lnd_pb2.SendCustomMessageRequest(peer=rig.peer.id, type=32767))
    code, reason, message = await failure(call)
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_MESSAGE")
    assert message.startswith("msg type: 32767 not in custom range: 32768 and not overridden")
