"""Conversions between the messages of cln-grpc and Greenlight and the values of the core."""

from __future__ import annotations

from typing import Any, Final

from custommsg_server.api.dialects.address import parse_address
from custommsg_server.api.dialects.protos import cln_pb2 as pb
from custommsg_server.api.dialects.protos import greenlight_pb2
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival
from custommsg_server.node.port import Connected, NetAddress, NodeInfo, Outbound, Peer, PeerAddress

_NOT_SYNCED: Final = "The node has not caught up with the chain yet."


def outbound_from_proto(request: pb.SendcustommsgRequest) -> Outbound:
    """Parse the peer and the message.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE, with the invalid field.
    """
    return Outbound(wire.parse_node_id(request.node_id, "node_id"), wire.parse_message(request.msg))


def message_to_cln(arrival: Arrival) -> pb.CustomMsgNotification:
    """Convert a message that has arrived."""
    return pb.CustomMsgNotification(peer_id=arrival.peer_id, payload=arrival.message)


def message_to_greenlight(arrival: Arrival) -> greenlight_pb2.Custommsg:
    """Convert a message that has arrived."""
    return greenlight_pb2.Custommsg(peer_id=arrival.peer_id, payload=arrival.message)


def info_to_proto(info: NodeInfo) -> pb.GetinfoResponse:
    """Convert a node's description of itself."""
    return pb.GetinfoResponse(
        id=info.node_id,
        alias=info.alias,
        color=wire.unhex(info.color),
        num_peers=info.peers,
        num_pending_channels=info.pending_channels,
        num_active_channels=info.active_channels,
        num_inactive_channels=info.inactive_channels,
        version=info.version,
        our_features=pb.GetinfoOurFeatures(**info.features) if info.features else None,
        blockheight=info.block_height,
        network=info.network,
        address=[
            pb.GetinfoAddress(item_type=kind, port=one.port, address=one.host)
            for one in info.addresses
            if (kind := _kind(pb.GetinfoAddress.GetinfoAddressType, one)) is not None
        ],
        warning_lightningd_sync=None if info.is_synced else _NOT_SYNCED,
    )


def peer_to_proto(peer: Peer) -> pb.ListpeersPeers:
    """Convert a peer."""
    return pb.ListpeersPeers(
        id=peer.peer_id,
        connected=peer.connected,
        netaddr=[peer.address] if peer.address else (),
        features=peer.features or None,
        num_channels=peer.num_channels,
    )


def address_from_proto(request: pb.ConnectRequest) -> PeerAddress:
    """Parse the address of a peer: id, id@host or id@host:port, or host and port in fields of their own.

    Raises:
        RelayError: INVALID_NODE_ID, with the invalid field.
    """
    node_id, at, rest = request.id.partition("@")
    peer_id = wire.parse_node_id_hex(node_id, "id")
    if at and (request.host or request.port):
        raise RelayError(
            Reason.INVALID_NODE_ID, "The address is in id, and again in host or port.", field="host"
        )
    if at:
        return PeerAddress(peer_id, *parse_address(rest, 0, "id"))
    if not request.host:
        if request.port:
            raise RelayError(Reason.INVALID_NODE_ID, "A port needs a host.", field="port")
        return PeerAddress(peer_id)
    host, port = parse_address(request.host, request.port, "host")
    return PeerAddress(peer_id, host, port)


def connected_to_proto(peer_id: bytes, connected: Connected) -> pb.ConnectResponse:
    """Convert a connection."""
    kinds, address = pb.ConnectAddress.ConnectAddressType, connected.address
    is_socket = address.kind == "local socket"
    return pb.ConnectResponse(
        id=peer_id,
        features=connected.features,
        direction=pb.ConnectResponse.IN if connected.is_incoming else pb.ConnectResponse.OUT,
        address=pb.ConnectAddress(
            item_type=_kind(kinds, address) or kinds.Value("LOCAL_SOCKET"),
            socket=address.host if is_socket else None,
            address=None if is_socket else address.host,
            port=None if is_socket else address.port,
        ),
    )


def _kind(kinds: Any, address: NetAddress) -> Any:
    name = address.kind.upper().replace(" ", "_")
    return kinds.Value(name) if name in kinds.keys() else None  # noqa: SIM118 -- not a mapping
