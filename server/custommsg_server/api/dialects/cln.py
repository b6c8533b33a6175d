"""`cln.Node`, as cln-grpc serves it: https://docs.corelightning.org/docs/grpc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from custommsg_server.api.dialects.core import Core
from custommsg_server.api.dialects.protos import cln_pb2 as pb
from custommsg_server.api.dialects.protos import cln_pb2_grpc
from custommsg_server.domain import wire
from custommsg_server.inbox.port import Arrival
from custommsg_server.node.port import Outbound

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class ClnNode(cln_pb2_grpc.NodeServicer):
    """Serves `cln.Node` over the core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def SendCustomMsg(
        self, request: pb.SendcustommsgRequest, context: Context
    ) -> pb.SendcustommsgResponse:
        """Send one custom message to one connected peer."""
        return pb.SendcustommsgResponse(
            status=await self._core.send(lambda: outbound_from_proto(request), context)
        )

    # A coroutine that writes, as all streams of this server.
    async def SubscribeCustomMsg(  # type: ignore[override]
        self, request: pb.StreamCustomMsgRequest, context: Context
    ) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(context, message_to_proto)


def outbound_from_proto(request: pb.SendcustommsgRequest) -> Outbound:
    """Read the peer and the message.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE.
    """
    return Outbound(wire.parse_node_id(request.node_id), wire.parse_message(request.msg))


def message_to_proto(arrival: Arrival) -> pb.CustomMsgNotification:
    """Convert a message that has arrived."""
    return pb.CustomMsgNotification(peer_id=arrival.node_id, payload=arrival.message)
