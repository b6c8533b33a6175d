"""Conversions between LND's messages and the values of the core."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival
from custommsg_server.domain.types import TypeSet
from custommsg_server.node.port import NodeInfo, Outbound, Peer, PeerAddress

DEFAULT_PORT: Final = 9735
NETWORKS: Final = {"bitcoin": "mainnet"}
"""LND's names of networks, where lightningd's differ."""
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?")


def outbound_from_proto(request: pb.SendCustomMessageRequest, types: TypeSet) -> Outbound:
    """Parse the peer and the message.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE, with the invalid field.
    """
    peer = wire.parse_node_id(request.peer, "peer")
    message = wire.join_message(request.type, request.data, "data" if request.type in types else "type")
    if request.type not in types:
        # LND's text, which its clients compare to find out what is supported.
        lowest = types.ranges[0].start if types.ranges else 0
        raise RelayError(
            Reason.INVALID_MESSAGE,
            f"msg type: {request.type} not in custom range: {lowest} and not overridden."
            " The gateway's setting lnd_types is the range.",
            field="type",
        )
    return Outbound(peer, message)


def message_to_proto(arrival: Arrival) -> pb.CustomMessage:
    """Convert a message that has arrived."""
    message = arrival.message
    return pb.CustomMessage(peer=arrival.peer_id, type=wire.message_type(message), data=message[2:])


def info_to_proto(info: NodeInfo, peers: Sequence[Peer]) -> pb.GetInfoResponse:
    """Convert a node's description of itself."""
    return pb.GetInfoResponse(
        identity_pubkey=info.node_id.hex(),
        alias=info.alias,
        num_pending_channels=info.pending_channels,
        num_active_channels=info.active_channels,
        num_inactive_channels=info.inactive_channels,
        num_peers=sum(peer.connected for peer in peers),
        block_height=info.block_height,
        synced_to_chain=info.is_synced,
        testnet=info.network == "testnet",
        version=info.version,
        chains=[pb.Chain(chain="bitcoin", network=NETWORKS.get(info.network, info.network))],
        color=f"#{info.color}" if info.color else "",
    )


def peer_to_proto(peer: Peer) -> pb.Peer:
    """Convert a peer."""
    return pb.Peer(pub_key=peer.peer_id.hex(), address=peer.address)


def address_from_proto(address: pb.LightningAddress, node: NodeInfo | None) -> PeerAddress:
    """Parse the address of a peer.

    Only a host name or an IP address is allowed; lightningd would also accept the path of a unix socket.

    Args:
        address: the address in the request.
        node: our own node, if it is known.

    Raises:
        RelayError: INVALID_NODE_ID.
    """
    node_id = wire.parse_node_id_hex(address.pubkey, "addr.pubkey")
    if node is not None and node_id == node.node_id:
        # LND's text, which its clients treat as success.
        raise RelayError(Reason.INVALID_NODE_ID, "cannot make connection to self", field="addr.pubkey")
    host, port = _split(address.host)
    if not (_is_ipv6(host) or _HOST.fullmatch(host)) or not 0 < port <= 65_535:
        raise RelayError(
            Reason.INVALID_NODE_ID,
            "The peer's address is invalid. Write host, host:port or [ipv6]:port.",
            field="addr.host",
        )
    return PeerAddress(node_id, host, port)


def _split(text: str) -> tuple[str, int]:
    """Split host and port; an invalid port becomes 0."""
    if _is_ipv6(text):
        return text, DEFAULT_PORT
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(host) or rest[:1] not in ("", ":"):
            return "", 0
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
    if not colon:
        return host, DEFAULT_PORT
    return host, int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
