"""What clients of LND and of Core Lightning call before anything else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from pyln.client import LightningRpc

from custommsg_server.api.dialects.protos import cln_pb2, lnd_pb2, lnd_pb2_grpc, verrpc_pb2, verrpc_pb2_grpc
from custommsg_testing import devnode
from support import standin
from support.gateways import gateway
from support.keys import node_id

from .conftest import Rig, failure, read, registered

FEATURES = {1: "data-loss-protect", 9: "tlv-onion", 13: "static-remote-key", 15: "payment-addr"}
"""Those of the embedded node: 0xa202."""


def at(pubkey: str, host: str) -> lnd_pb2.ConnectPeerRequest:
    """Make a request to connect."""
    return lnd_pb2.ConnectPeerRequest(addr=lnd_pb2.LightningAddress(pubkey=pubkey, host=host))


async def test_the_node_is_described_truthfully(rig: Rig) -> None:
    """Each field has the value of getinfo, under LND's name."""
    info = await rig.lnd.GetInfo(lnd_pb2.GetInfoRequest())
    described = await asyncio.to_thread(LightningRpc(str(rig.node.rpc_file)).getinfo)
    assert (info.identity_pubkey, info.alias) == (described["id"], described["alias"])
    assert (info.version, info.color) == (described["version"], f"#{described['color']}")
    assert [(chain.chain, chain.network) for chain in info.chains] == [("bitcoin", "regtest")]
    assert (info.num_peers, info.num_active_channels, info.block_height) == (1, 0, 0)
    assert not info.testnet
    assert {bit: feature.name for bit, feature in info.features.items()} == FEATURES
    assert {feature.is_required for feature in info.features.values()} == {False}


async def test_only_connected_peers_are_listed(rig: Rig) -> None:
    """As LND does; lightningd also lists disconnected peers."""
    [peer] = (await rig.lnd.ListPeers(lnd_pb2.ListPeersRequest())).peers
    assert peer.pub_key == rig.peer.id.hex()
    assert peer.address.startswith("127.0.0.1:")
    rig.node.remember(rig.peer.id)
    await rig.node.disconnect(rig.peer.id)
    assert not (await rig.lnd.ListPeers(lnd_pb2.ListPeersRequest())).peers


async def test_a_peer_is_connected_to(rig: Rig, short_path: Path) -> None:
    """By id and address; a second call does no harm."""
    async with devnode.run(short_path / "other") as other:
        for _ in range(2):
            answer = await rig.lnd.ConnectPeer(at(other.id.hex(), str(other.address)))
            assert answer.status == f"connection to {other.id.hex()}@{other.address} initiated"
        await other.until_connected(rig.node.id)
        listed = (await rig.lnd.ListPeers(lnd_pb2.ListPeersRequest())).peers
        assert other.id.hex() in [peer.pub_key for peer in listed]


async def test_a_peer_that_cannot_be_reached_is_a_failed_precondition(rig: Rig) -> None:
    """With the node's text."""
    code, reason, message = await failure(rig.lnd.ConnectPeer(at(node_id().hex(), "127.0.0.1:1")))
    assert (code, reason) == ("FAILED_PRECONDITION", "PEER_NOT_CONNECTED")
    assert "could not connect" in message


async def test_connecting_to_oneself_is_refused_in_lnds_words(rig: Rig) -> None:
    """Clients treat "connection to self" as success."""
    call = rig.lnd.ConnectPeer(at(rig.node.id.hex(), str(rig.node.address)))
    assert await failure(call) == ("INVALID_ARGUMENT", "INVALID_NODE_ID", "cannot make connection to self")


async def test_a_peer_is_disconnected_even_if_it_has_a_channel(rig: Rig) -> None:
    """As LND does it; what is not connected cannot be disconnected."""
    rig.node.remember(rig.peer.id)
    request = lnd_pb2.DisconnectPeerRequest(pub_key=rig.peer.id.hex())
    assert (await rig.lnd.DisconnectPeer(request)).status == "disconnect initiated"
    await rig.peer.until_connected(rig.node.id, connected=False)
    expected = ("NOT_FOUND", "PEER_NOT_CONNECTED", "unable to disconnect peer: peer is not connected")
    assert await failure(rig.lnd.DisconnectPeer(request)) == expected
    stranger = lnd_pb2.DisconnectPeerRequest(pub_key=node_id().hex())
    assert (await failure(rig.lnd.DisconnectPeer(stranger)))[:2] == ("NOT_FOUND", "PEER_UNKNOWN")


async def test_connects_and_disconnects_are_streamed(rig: Rig) -> None:
    """And nothing else: no messages."""
    stream = await registered(rig.lnd.SubscribePeerEvents(lnd_pb2.PeerEventSubscription()))
    await rig.peer.send(rig.node.id, b"\x94\x19\xca\xfe")
    await rig.node.disconnect(rig.peer.id)
    await rig.peer.until_connected(rig.node.id, connected=False)
    await rig.peer.connect(rig.node)
    events = [await read(stream) for _ in range(2)]
    assert [event.pub_key for event in events] == [rig.peer.id.hex()] * 2
    assert [event.type for event in events] == [lnd_pb2.PeerEvent.PEER_OFFLINE, lnd_pb2.PeerEvent.PEER_ONLINE]


async def test_a_node_is_described_as_gossip_knows_it(rig: Rig) -> None:
    """bos takes the addresses from there; an unknown node is not found, in LND's words."""
    request = lnd_pb2.NodeInfoRequest(pub_key=rig.peer.id.hex())
    assert await failure(rig.lnd.GetNodeInfo(request)) == (
        *("NOT_FOUND", "PEER_UNKNOWN"),
        "unable to find node",
    )
    rig.node.announce(rig.peer)
    node = (await rig.lnd.GetNodeInfo(request)).node
    assert (node.pub_key, node.alias) == (rig.peer.id.hex(), rig.peer.alias)
    assert [(one.network, one.addr) for one in node.addresses] == [("tcp", str(rig.peer.address))]
    assert (node.last_update, node.color) == (1_700_000_000, f"#{rig.peer.id[:3].hex()}")
    assert set(node.features) >= set(FEATURES)


async def test_the_version_is_that_of_the_contract(rig: Rig) -> None:
    """A program that needs other services of LND finds no build tags; who asks for a commit learns the truth."""
    stub = verrpc_pb2_grpc.VersionerStub(rig.channel)
    version = await stub.GetVersion(verrpc_pb2.VersionRequest())
    assert (version.version, version.app_minor) == ("0.20.0-beta", 20)
    assert version.commit.startswith(f"Core Lightning {rig.node.version}, through custommsg ")


async def test_the_state_is_that_of_the_node_and_needs_no_credential(rpc_file: Path) -> None:
    """RPC_ACTIVE while the node does not answer; a stream has each change."""
    async with (
        gateway(rpc_file, insecure=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = lnd_pb2_grpc.StateStub(channel)
        stream = stub.SubscribeState(lnd_pb2.SubscribeStateRequest())
        assert (await read(stream)).state == lnd_pb2.RPC_ACTIVE
        async with standin.running(rpc_file):
            assert (await read(stream)).state == lnd_pb2.SERVER_ACTIVE
            assert (await stub.GetState(lnd_pb2.GetStateRequest())).state == lnd_pb2.SERVER_ACTIVE
        assert (await read(stream)).state == lnd_pb2.RPC_ACTIVE
        assert (await stub.GetState(lnd_pb2.GetStateRequest())).state == lnd_pb2.RPC_ACTIVE


@pytest.mark.parametrize("method", ["ListChannels", "PendingChannels"])
async def test_what_cannot_be_answered_truthfully_names_the_page_that_says_why(rig: Rig, method: str) -> None:
    """Channels are not what the gateway is for."""
    call = rig.channel.unary_unary(f"/lnrpc.Lightning/{method}")
    with pytest.raises(grpc.aio.AioRpcError, match=r"docs/dialects\.md") as caught:
        await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_cln_client_learns_who_the_node_is(rig: Rig) -> None:
    """Each field is what getinfo says."""
    info = await rig.cln.Getinfo(cln_pb2.GetinfoRequest())
    described = await asyncio.to_thread(LightningRpc(str(rig.node.rpc_file)).getinfo)
    assert (info.id.hex(), info.alias, info.color.hex()) == tuple(
        described[name] for name in ("id", "alias", "color")
    )
    assert (info.version, info.network, info.num_peers) == (described["version"], "regtest", 1)
    assert info.our_features.init.hex() == described["our_features"]["init"]
    assert not info.HasField("warning_lightningd_sync")


async def test_a_cln_client_lists_peers(rig: Rig) -> None:
    """All that the node knows, or one."""
    other = cln_pb2.ListpeersRequest(id=node_id())
    assert not (await rig.cln.ListPeers(other)).peers
    for request in (cln_pb2.ListpeersRequest(), cln_pb2.ListpeersRequest(id=rig.peer.id)):
        [peer] = (await rig.cln.ListPeers(request)).peers
        assert (peer.id, peer.connected, peer.num_channels) == (rig.peer.id, True, 0)
        assert peer.netaddr[0].startswith("127.0.0.1:")
        assert peer.features


async def test_a_cln_client_connects_and_disconnects(rig: Rig, short_path: Path) -> None:
    """In each way to write an address; by force only if there is a channel."""
    async with devnode.run(short_path / "other") as other:
        host, port = other.address.host, other.address.port
        ways = (
            {"id": f"{other.id.hex()}@{other.address}"},
            {"id": other.id.hex(), "host": host, "port": port},
            {"id": other.id.hex(), "host": str(other.address)},
            {"id": rig.peer.id.hex()},  # it is connected: no address is needed
        )
        for way in ways[:3]:
            answer = await rig.cln.ConnectPeer(cln_pb2.ConnectRequest(**way))
            assert (answer.id, answer.direction) == (other.id, cln_pb2.ConnectResponse.OUT)
            assert (answer.address.address, answer.address.port) == (host, port)
            assert answer.address.item_type == cln_pb2.ConnectAddress.IPV4
            assert answer.features
            await rig.cln.Disconnect(cln_pb2.DisconnectRequest(id=other.id))
        answer = await rig.cln.ConnectPeer(cln_pb2.ConnectRequest(**ways[3]))
        assert answer.direction == cln_pb2.ConnectResponse.IN
    gone = rig.cln.Disconnect(cln_pb2.DisconnectRequest(id=other.id))
    assert (await failure(gone))[:2] == ("NOT_FOUND", "PEER_UNKNOWN")
