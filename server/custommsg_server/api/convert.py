"""Between the contract's messages and the core's values."""

from __future__ import annotations

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.wire import Message, NodeId
from custommsg_server.node.port import NodeInfo, Outbound, Peer

Addressed = pb.SendCustomMsgRequest | pb.OutboundMsg
"""What names a peer and a message: both kinds have the same fields."""


def outbound_from_proto(request: Addressed) -> Outbound:
    """Read the peer and the message, whichever way they were given.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE, with the field at fault.
    """
    return Outbound(_node_id(request), _message(request))


def _node_id(request: Addressed) -> NodeId:
    # Programs say it as bytes: to ask which of the ways it is costs as much as to read it.
    given = "node_id" if request.node_id else request.WhichOneof("peer")
    try:
        match given:
            case "node_id":
                return wire.parse_node_id(request.node_id)
            case "node_id_hex":
                return wire.parse_node_id_hex(request.node_id_hex)
            case None:
                raise RelayError(
                    Reason.INVALID_NODE_ID, "No peer is given. Set node_id (bytes) or node_id_hex (text)."
                )
    except RelayError as error:
        error.field = given or "peer"
        raise


def _message(request: Addressed) -> Message:
    given = "msg" if request.msg else request.WhichOneof("message")
    try:
        match given:
            case "msg":
                return wire.parse_message(request.msg)
            case "msg_hex":
                return wire.parse_message_hex(request.msg_hex)
            case "typed_msg":
                return wire.join_message(request.typed_msg.type, request.typed_msg.payload)
            case None:
                raise RelayError(
                    Reason.INVALID_MESSAGE,
                    "No message is given. Set msg (bytes), msg_hex (text) or typed_msg.",
                )
    except RelayError as error:
        error.field = given or "message"
        raise


def peer_to_proto(peer: Peer) -> pb.Peer:
    """Convert a peer."""
    return pb.Peer(
        node_id=peer.node_id,
        node_id_hex=peer.node_id.hex(),
        connected=peer.connected,
        address=peer.address,
        num_channels=peer.num_channels,
    )


def node_to_proto(info: NodeInfo) -> pb.Node:
    """Convert a node's description of itself."""
    return pb.Node(
        node_id=info.node_id,
        node_id_hex=info.node_id.hex(),
        alias=info.alias,
        network=info.network,
        version=info.version,
    )
