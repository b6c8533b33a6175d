"""What clients of other contracts ask the node, over every kind of node."""

from __future__ import annotations

import grpc
import pytest

from custommsg_server.api.dialects.protos import cln_pb2, cln_pb2_grpc, lnd_pb2, lnd_pb2_grpc
from support.keys import node_id

from .conftest import Rig


async def test_the_node_is_described_as_it_describes_itself(rig: Rig) -> None:
    """In both contracts; the features are those that it shows its peers."""
    described = await rig.node.call("getinfo")
    async with grpc.aio.insecure_channel(rig.address) as channel:
        info = await cln_pb2_grpc.NodeStub(channel).Getinfo(cln_pb2.GetinfoRequest())
        lnd = await lnd_pb2_grpc.LightningStub(channel).GetInfo(lnd_pb2.GetInfoRequest())
    assert (info.id.hex(), info.alias, info.version) == (
        described["id"],
        described["alias"],
        described["version"],
    )
    assert info.num_peers == 1
    for place, features in described["our_features"].items():
        assert getattr(info.our_features, place).hex() == features
    bits = int(described["our_features"]["init"], 16)
    assert {bit for bit in range(bits.bit_length()) if bits >> bit & 1} <= set(lnd.features)
    assert {feature.name for feature in lnd.features.values()} > {"data-loss-protect", "tlv-onion"}


async def test_a_peer_is_disconnected_and_connected(rig: Rig) -> None:
    """Events tell of both; the node's answers have the documented codes."""
    peer = rig.node.peer
    async with grpc.aio.insecure_channel(rig.address) as channel:
        cln, lnd = cln_pb2_grpc.NodeStub(channel), lnd_pb2_grpc.LightningStub(channel)
        events = lnd.SubscribePeerEvents(lnd_pb2.PeerEventSubscription())
        await events.initial_metadata()
        [listed] = (await cln.ListPeers(cln_pb2.ListpeersRequest())).peers
        assert (listed.id, listed.connected, bool(listed.features)) == (peer.id, True, True)
        answer = await cln.ConnectPeer(cln_pb2.ConnectRequest(id=peer.id.hex()))
        assert (answer.id, answer.features) == (peer.id, listed.features)
        assert answer.address.address == "127.0.0.1"
        await lnd.DisconnectPeer(lnd_pb2.DisconnectPeerRequest(pub_key=peer.id.hex()))
        event = await events.read()
        assert (event.pub_key, event.type) == (peer.id.hex(), lnd_pb2.PeerEvent.PEER_OFFLINE)
        for call, text in (
            (cln.Disconnect(cln_pb2.DisconnectRequest(id=node_id())), "does not know this peer"),
            (lnd.GetNodeInfo(lnd_pb2.NodeInfoRequest(pub_key=node_id().hex())), "unable to find node"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
