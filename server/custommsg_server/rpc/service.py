"""The servicer of custommsg.v1.CustomMsgService: each RPC is parse, call the core, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc

from custommsg_server.relay import Relay
from custommsg_server.rpc import convert
from custommsg_server.rpc.deadline import Deadlines
from custommsg_server.wire import message_type

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class CustomMsgService(custommsg_pb2_grpc.CustomMsgServiceServicer):
    """Serves the contract over the core.

    Args:
        relay: the core.
        deadlines: says how long a call may take.
        version: the gateway's own version.
    """

    def __init__(self, relay: Relay, deadlines: Deadlines, version: str) -> None:
        self._relay = relay
        self._deadlines = deadlines
        self._version = version

    async def SendCustomMsg(
        self, request: pb.SendCustomMsgRequest, context: Context
    ) -> pb.SendCustomMsgResponse:
        """Send one custom message to one connected peer."""
        outbound = convert.outbound_from_proto(request)
        act = self._relay.check if request.validate_only else self._relay.send
        status = await act(outbound, self._deadlines.of(context))
        return pb.SendCustomMsgResponse(status=status, type=message_type(outbound.message))

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        """List the peers that the node knows now."""
        peers = await self._relay.list_peers(self._deadlines.of(context))
        return pb.ListPeersResponse(peers=map(convert.peer_to_proto, peers))

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:
        """Describe the gateway, its node, and the link between the two."""
        info = self._relay.node_info
        return pb.GetInfoResponse(
            gateway_version=self._version,
            node_link_up=self._relay.node_is_up,
            node=convert.node_to_proto(info) if info else None,
        )
