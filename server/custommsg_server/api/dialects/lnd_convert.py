"""Conversions between LND's messages and the values of the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from custommsg_server.api.dialects.address import parse_address
from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.api.dialects.protos import verrpc_pb2
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.node.port import Announcement, NodeInfo, Outbound, Peer, PeerAddress

DEFAULT_PORT: Final = 9735
NETWORKS: Final = {"bitcoin": "mainnet"}
"""LND's names of networks, where lightningd's differ."""
LND_VERSION: Final = (0, 20, 0, "beta")
"""The version of LND whose protos are served."""
FEATURES: Final = {
    0: "data-loss-protect",
    2: "initial-routing-sync",
    4: "upfront-shutdown-script",
    6: "gossip-queries",
    8: "tlv-onion",
    12: "static-remote-key",
    14: "payment-addr",
    16: "multi-path-payments",
    18: "wumbo-channels",
    20: "anchor-commitments",
    22: "anchors-zero-fee-htlc-tx",
    24: "route-blinding",
    26: "shutdown-any-segwit",
    30: "amp",
    34: "quiescence",
    38: "onion-messages",
    44: "explicit-commitment-type",
    46: "scid-alias",
    48: "payment-metadata",
    50: "zero-conf",
    54: "keysend",
    60: "rbf-coop-close",
    80: "simple-taproot-chans",
}
"""LND's names of features (lnwire/features.go) by their even bit; the odd bit after it is the optional feature."""


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
        uris=[f"{info.node_id.hex()}@{address}" for address in info.addresses],
        chains=[pb.Chain(chain="bitcoin", network=NETWORKS.get(info.network, info.network))],
        color=_color(info.color),
        features=features_to_proto(info.features.values()),
    )


def peer_to_proto(peer: Peer) -> pb.Peer:
    """Convert a peer."""
    return pb.Peer(
        pub_key=peer.peer_id.hex(), address=peer.address, features=features_to_proto([peer.features])
    )


def announcement_to_proto(node: Announcement) -> pb.NodeInfo:
    """Convert what is known about a node."""
    return pb.NodeInfo(
        node=pb.LightningNode(
            last_update=node.time,
            pub_key=node.node_id.hex(),
            alias=node.alias,
            addresses=[pb.NodeAddress(network="tcp", addr=str(address)) for address in node.addresses],
            color=_color(node.color),
            features=features_to_proto([node.features]),
        )
    )


def features_to_proto(sets: Iterable[bytes]) -> Mapping[int, pb.Feature]:
    """Convert sets of features, each as in BOLT 9, to the union of them."""
    bits = 0
    for each in sets:
        bits |= int.from_bytes(each)
    found = {}
    for bit in (bit for bit in range(bits.bit_length()) if bits >> bit & 1):
        name = FEATURES.get(bit & ~1)
        found[bit] = pb.Feature(name=name or "unknown", is_required=bit % 2 == 0, is_known=name is not None)
    return found


def peer_event_to_proto(arrival: Arrival) -> pb.PeerEvent:
    """Convert a connect or a disconnect."""
    online = arrival.kind is Kind.CONNECTED
    return pb.PeerEvent(
        pub_key=arrival.peer_id.hex(),
        type=pb.PeerEvent.PEER_ONLINE if online else pb.PeerEvent.PEER_OFFLINE,
    )


def version_to_proto(node: NodeInfo | None, gateway: str) -> verrpc_pb2.Version:
    """Return the version of LND whose contract is served, and what it really is."""
    major, minor, patch, more = LND_VERSION
    return verrpc_pb2.Version(
        commit=f"Core Lightning {node.version if node else ''}, through custommsg {gateway}",
        version=f"{major}.{minor}.{patch}-{more}",
        app_major=major,
        app_minor=minor,
        app_patch=patch,
        app_pre_release=more,
    )


def address_from_proto(address: pb.LightningAddress, node: NodeInfo | None) -> PeerAddress:
    """Parse the address of a peer.

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
    return PeerAddress(node_id, *parse_address(address.host, DEFAULT_PORT, "addr.host"))


def _color(digits: str) -> str:
    return f"#{digits}" if digits else ""
