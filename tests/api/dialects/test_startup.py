"""The first calls of LND's clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pyln.client import LightningRpc

from custommsg_server.api.dialects.protos import lnd_pb2
from custommsg_testing import devnode
from support.keys import node_id

from .conftest import Rig, failure


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
