"""Receiving through the dialects."""

from __future__ import annotations

from pathlib import Path

import grpc

from custommsg_server.api.dialects.protos import cln_pb2, greenlight_pb2, lnd_pb2, lnd_pb2_grpc

from .conftest import Rig, failure, read, registered, running_rig


async def test_cln_and_greenlight_clients_get_the_message_with_its_type(rig: Rig) -> None:
    """Of every type, also below 32,768."""
    cln = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    greenlight = await registered(rig.greenlight.StreamCustommsg(greenlight_pb2.StreamCustommsgRequest()))
    for message in (b"\x94\x19\xca\xfe", b"\x03\xe9", b"\xff\xff\x00"):
        await rig.peer.send(rig.node.id, message)
        notification, custommsg = await read(cln), await read(greenlight)
        assert (notification.peer_id, notification.payload) == (rig.peer.id, message)
        assert (custommsg.peer_id, custommsg.payload) == (rig.peer.id, message)


async def test_an_lnd_client_gets_custom_types_alone(rig: Rig) -> None:
    """Types of 32,768 and above, with type and data as separate fields."""
    stream = await registered(rig.lnd.SubscribeCustomMessages(lnd_pb2.SubscribeCustomMessagesRequest()))
    await rig.peer.send(rig.node.id, b"\x7f\xff\x01")
    await rig.peer.send(rig.node.id, b"\x80\x01\x02")
    message = await read(stream)
    assert (message.peer, message.type, message.data) == (rig.peer.id, 32769, b"\x02")


async def test_a_setting_says_which_types_lnd_clients_send_and_get(short_path: Path) -> None:
    """As LND's own `protocol.custom-message` does."""
    async with running_rig(short_path, lnd_types=("1001", "32768-65535")) as rig:
        stream = await registered(rig.lnd.SubscribeCustomMessages(lnd_pb2.SubscribeCustomMessagesRequest()))
        await rig.lnd.SendCustomMessage(lnd_pb2.SendCustomMessageRequest(peer=rig.peer.id, type=1001))
        assert (await rig.peer.next_message()).type == 1001
        await rig.peer.send(rig.node.id, (1003).to_bytes(2, "big"))
        await rig.peer.send(rig.node.id, (1001).to_bytes(2, "big"))
        assert (await read(stream)).type == 1001


async def test_a_stream_is_live(rig: Rig) -> None:
    """It has no earlier messages, since these contracts have no positions."""
    early = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    await rig.peer.send(rig.node.id, b"\x94\x19\x01")
    assert (await read(early)).payload == b"\x94\x19\x01"
    late = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    await rig.peer.send(rig.node.id, b"\x94\x19\x02")
    assert (await read(late)).payload == b"\x94\x19\x02"


async def test_coming_and_going_of_peers_is_no_message(rig: Rig) -> None:
    """The next response on the stream is the next message."""
    stream = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    await rig.node.disconnect(rig.peer.id)
    await rig.peer.until_connected(rig.node.id, connected=False)
    await rig.peer.connect(rig.node)
    await rig.peer.send(rig.node.id, b"\x94\x19")
    assert (await read(stream)).payload == b"\x94\x19"


async def test_many_messages_arrive_in_order_however_late_they_are_read(rig: Rig) -> None:
    """They are written several at once, and more than fits the buffers on the way."""
    stream = await registered(rig.cln.SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest()))
    messages = [b"\x94\x19" + number.to_bytes(2, "big") + bytes(4000) for number in range(300)]
    for message in messages:
        await rig.peer.send(rig.node.id, message)
    assert [(await read(stream)).payload for _ in messages] == messages


async def test_a_gateway_that_stops_says_so(short_path: Path) -> None:
    """The stream ends with a reason."""
    async with grpc.aio.insecure_channel(f"unix:{short_path}/gateway.sock") as channel:
        async with running_rig(short_path, listen=(f"unix:{short_path}/gateway.sock",)):
            stub = lnd_pb2_grpc.LightningStub(channel)
            stream = await registered(stub.SubscribeCustomMessages(lnd_pb2.SubscribeCustomMessagesRequest()))
        assert (await failure(stream.read()))[:2] == ("UNAVAILABLE", "GATEWAY_STOPPING")
