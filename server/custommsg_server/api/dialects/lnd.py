"""`lnrpc.Lightning`, as far as custom messages need it: https://lightning.engineering/api-docs/api/lnd."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from custommsg_server.api.dialects import lnd_convert as convert
from custommsg_server.api.dialects.core import Core
from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.api.dialects.protos import lnd_pb2_grpc
from custommsg_server.api.status import RecodedError
from custommsg_server.domain.errors import Reason, RelayError

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_AWAY = frozenset({Reason.PEER_UNKNOWN, Reason.PEER_NOT_CONNECTED})


class LndLightning(lnd_pb2_grpc.LightningServicer):
    """Serves `lnrpc.Lightning` over the core.

    Args:
        core: the core.
        types: the types of messages that it sends and streams; LND has a setting for that, too.
    """

    def __init__(self, core: Core, types: frozenset[int]) -> None:
        self._core = core
        self._types = types

    async def SendCustomMessage(
        self, request: pb.SendCustomMessageRequest, context: Context
    ) -> pb.SendCustomMessageResponse:
        """Send one custom message to one connected peer."""
        try:
            status = await self._core.send(lambda: convert.outbound_from_proto(request, self._types), context)
        except RelayError as error:
            if error.reason in _AWAY:
                # LND's code and its words for both: its clients look at them.
                raise RecodedError(error, grpc.StatusCode.NOT_FOUND, "peer is not connected") from None
            raise
        return pb.SendCustomMessageResponse(status=status)

    # A coroutine that writes, as all streams of this server.
    async def SubscribeCustomMessages(  # type: ignore[override]
        self, request: pb.SubscribeCustomMessagesRequest, context: Context
    ) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(context, convert.message_to_proto, convert.ranges(self._types))

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:
        """Describe the node."""
        deadline = self._core.deadline(context)
        info, peers = await asyncio.gather(
            self._core.relay.describe_node(deadline), self._core.relay.list_peers(deadline)
        )
        return convert.info_to_proto(info, peers)

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        """List the peers that the node is connected to."""
        peers = await self._core.relay.list_peers(self._core.deadline(context))
        return pb.ListPeersResponse(peers=[convert.peer_to_proto(peer) for peer in peers if peer.connected])

    async def ConnectPeer(self, request: pb.ConnectPeerRequest, context: Context) -> pb.ConnectPeerResponse:
        """Have the node connect to a peer."""
        address = convert.address_from_proto(request.addr, self._core.relay.node_info)
        deadline = self._core.deadline(context)
        if request.timeout:
            deadline = min(deadline, asyncio.get_running_loop().time() + request.timeout)
        await self._core.relay.connect(address, deadline)
        return pb.ConnectPeerResponse(status=f"connection to {address} initiated")
