"""The commands of the node's JSON-RPC.

Texts, codes and the order of the checks are those of lightningd's doc/schemas, lightningd/connect_control.c and
lightningd/peer_control.c.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from custommsg_server.domain import wire
from custommsg_testing.devnode import params as p
from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.bolt1 import FEATURES
from custommsg_testing.devnode.outbox import OutboxFullError
from custommsg_testing.devnode.params import INVALID_PARAMS, INVALID_REQUEST, Param, RpcError, optional
from custommsg_testing.devnode.peer import Peer, PeerError, UnknownHostError
from custommsg_testing.devnode.table import Call, Json, Node, command

LIGHTNINGD: Final = -1
CONNECT_NO_KNOWN_ADDRESS: Final = 400
CONNECT_ALL_ADDRESSES_FAILED: Final = 401
WAIT_TIMEOUT: Final = 2000

WOULD_HAVE_DIED: Final = -41000
"""Our own code: lightningd would have crashed here. This node only says so."""
PEER_DOES_NOT_READ: Final = -41001
"""Our own code: lightningd would have kept the message in memory, however many there are already."""


@command(spaced=True)
def getinfo(call: Call) -> Json:
    """Return the node's id, its addresses and more about it."""
    call.checked()
    node = call.node
    return {
        "id": node.id.hex(),
        "alias": node.alias,
        "color": node.id[:3].hex(),
        "num_peers": len(node.peers),
        "num_pending_channels": 0,
        "num_active_channels": 0,
        "num_inactive_channels": 0,
        "address": [],
        "binding": [address.to_json() for address in node.binding],
        "version": node.version,
        "blockheight": 0,
        "network": node.network.name,
        "fees_collected_msat": 0,
        "lightning-dir": str(node.network_dir),
        "our_features": {"init": FEATURES.hex(), "node": "", "channel": "", "invoice": ""},
    }


@command(optional("id", p.node_id), optional("level", p.string))
def listpeers(call: Call, id: bytes | None = None, level: str = "") -> Json:
    """List the peers that are connected, and those that `remember` was called for."""
    call.checked()
    node = call.node
    known = [peer.id for peer in node.peers]
    known += [peer_id for peer_id in node.remembered if peer_id not in known]
    return {"peers": [_peer_json(node, peer_id) for peer_id in known if id in (None, peer_id)]}


@command(Param("id", p.string), optional("host", p.string), optional("port", p.port))
async def connect(call: Call, id: str, host: str | None = None, port: int | None = None) -> Json:
    """Connect to a peer, given as an id and a host, or as id@host:port."""
    node_id, address = _id_and_address(id, host, port, call.node.network.port)
    call.checked()
    peer = call.node.peers.get(node_id)
    if peer is None and address is None:
        raise RpcError(CONNECT_NO_KNOWN_ADDRESS, "Unable to connect, no address known for peer")
    if peer is None:
        assert address is not None
        try:
            peer = await call.node.peers.connect(node_id, address)
        except UnknownHostError as error:
            raise RpcError(LIGHTNINGD, str(error)) from None
        except PeerError as error:
            raise RpcError(CONNECT_ALL_ADDRESSES_FAILED, f"All addresses failed: {error}. ") from None
    return {
        "id": peer.id.hex(),
        "features": peer.features.hex(),
        "direction": "in" if peer.incoming else "out",
        "address": peer.address.to_json(),
    }


@command(optional("id", p.node_id))
def listnodes(call: Call, id: bytes | None = None) -> Json:
    """List the nodes that `announce` was called for: this node takes no part in gossip."""
    call.checked()
    return {"nodes": [node for node_id, node in call.node.announced.items() if id in (None, node_id)]}


@command(Param("id", partial(p.node_id, what="invalid peer id")), optional("force", p.boolean))
async def disconnect(call: Call, id: bytes, force: bool = False) -> Json:
    """Disconnect a peer."""
    peer = call.node.peers.get(id)
    if peer is None and id in call.node.remembered:
        raise RpcError(LIGHTNINGD, "Peer not connected")
    if peer is None:
        raise RpcError(INVALID_PARAMS, f"Unknown peer '{id.hex()}'")
    call.checked()
    await call.node.peers.disconnect(peer)
    return {}


@command(Param("node_id", p.node_id), Param("msg", p.string))
def sendcustommsg(call: Call, node_id: bytes, msg: str) -> Json:
    """Queue a message for a peer. The reply does not mean that the peer has it."""
    message = _unhex_as_lightningd(msg)
    if not call.check:
        _refuse_deadly(call.node, message, msg)
    number = wire.message_type(message) if len(message) >= wire.MIN_MESSAGE_SIZE else -1
    if number in wire.INTERNAL_TYPES:
        raise RpcError(
            INVALID_REQUEST,
            f"Cannot send messages of type {number} ({wire.INTERNAL_TYPES[number]}). It is not possible to"
            " send messages that have a type managed internally since that might cause issues with the"
            " internal state tracking.",
        )
    peer = _connected(call.node, node_id)
    call.checked()
    try:
        peer.send(message)
    except OutboxFullError as error:
        raise RpcError(
            PEER_DOES_NOT_READ,
            f"The peer does not read: {error}. Real lightningd would have kept this message in memory.",
        ) from None
    return {"status": "Message sent to connectd for delivery"}


@command(Param("blockheight", p.number), optional("timeout", p.number))
async def waitblockheight(call: Call, blockheight: int, timeout: int = 60) -> Json:
    """Wait for a block, which never comes. This is a slow command, to try replies out of order with."""
    call.checked()
    if blockheight > 0:
        await asyncio.sleep(timeout)
        raise RpcError(WAIT_TIMEOUT, "Timed out.")
    return {"blockheight": 0}


@command(Param("enable", p.boolean))
def notifications(call: Call, enable: bool) -> Json:
    """Switch notifications about running commands on or off. This node sends none."""
    call.checked()
    return {}


@command()
async def stop(call: Call) -> Json:
    """Stop the node. The reply is the last thing that it does."""
    call.checked()
    await call.node.wind_down()
    return {"result": "Shutdown complete"}


COMMANDS: Final = (
    getinfo,
    listpeers,
    connect,
    disconnect,
    listnodes,
    sendcustommsg,
    waitblockheight,
    notifications,
    stop,
)


def _peer_json(node: Node, peer_id: bytes) -> Json:
    peer = node.peers.get(peer_id)
    # A remembered peer stands for a peer with a channel. lightningd forgets other peers as soon as they leave.
    channels = int(peer_id in node.remembered)
    if peer is None:
        return {"id": peer_id.hex(), "connected": False, "num_channels": channels, "features": ""}
    return {
        "id": peer_id.hex(),
        "connected": True,
        "num_channels": channels,
        "netaddr": [str(peer.address)],
        "features": peer.features.hex(),
    }


def _connected(node: Node, node_id: bytes) -> Peer:
    peer = node.peers.get(node_id)
    if peer is not None:
        return peer
    if node_id in node.remembered:
        raise RpcError(INVALID_REQUEST, "Peer is not connected")
    raise RpcError(INVALID_REQUEST, f"No such peer: {node_id.hex()}")


def _unhex_as_lightningd(digits: str) -> bytes:
    # lightningd reads text that is not hex as an empty message, and then dies of that message.
    try:
        return wire.unhex(digits)
    except ValueError:
        return b""


def _refuse_deadly(node: Node, message: bytes, digits: str) -> None:
    # Before the peer is looked up: a message that kills lightningd is a fault even if the peer has just left.
    if wire.MIN_MESSAGE_SIZE <= len(message) <= wire.MAX_MESSAGE_SIZE:
        return
    what = f"sendcustommsg with {len(message):,} bytes"
    if not message and digits:
        what = f"sendcustommsg with {len(digits):,} characters that are not hex, which it reads as an empty message"
    text = f"real lightningd would have crashed here: {what}"
    if len(message) == 1:
        text = f"real lightningd would have sent a message without a whole type: {what}"
    node.record_death(text)
    raise RpcError(WOULD_HAVE_DIED, text)


def _id_and_address(
    text: str, host: str | None, port: int | None, default_port: int
) -> tuple[wire.NodeId, Address | None]:
    node_part, at, host_part = text.partition("@")
    try:
        node_id = p.node_id("id", node_part)
    except RpcError:
        raise p.bad_param("id", "should be a node id", text) from None
    if at and host is not None:
        raise RpcError(INVALID_PARAMS, "Can't specify host as both xxx@yyy and separate argument")
    if at:
        try:
            return node_id, Address.parse(host_part, port or default_port)
        except ValueError:
            raise RpcError(INVALID_PARAMS, "malformed host @part") from None
    if host is not None:
        try:
            return node_id, Address.parse(host, default_port) if port is None else Address(host, port)
        except ValueError as error:
            raise RpcError(LIGHTNINGD, f"Host {host}:{default_port} not valid: {error}") from None
    if port is not None:
        raise RpcError(INVALID_PARAMS, "Can't specify port without host")
    return node_id, None
