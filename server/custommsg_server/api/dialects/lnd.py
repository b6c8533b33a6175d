"""`lnrpc.Lightning`, as far as custom messages need it: https://lightning.engineering/api-docs/api/lnd."""

from __future__ import annotations

import asyncio

import grpc

from custommsg_server.api.call import Call
from custommsg_server.api.dialects import lnd_convert as convert
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.api.encoding import Encoder
from custommsg_server.api.status import RecodedError
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.types import TypeSet

_AWAY = frozenset({Reason.PEER_UNKNOWN, Reason.PEER_NOT_CONNECTED})


class LndLightning:
    """Serves `lnrpc.Lightning` over the core.

    Args:
        core: the core.
        types: the types of messages that it sends and streams; LND has a setting for that, too.
    """

    def __init__(self, core: DialectCore, types: TypeSet) -> None:
        self._core = core
        self._types = types
        self._encoder = Encoder(lambda event: convert.message_to_proto(event.arrival).SerializeToString())

    async def SendCustomMessage(
        self, request: pb.SendCustomMessageRequest, call: Call
    ) -> pb.SendCustomMessageResponse:
        """Send one custom message to one connected peer."""
        try:
            status = await self._core.send(lambda: convert.outbound_from_proto(request, self._types), call)
        except RelayError as error:
            if error.reason in _AWAY:
                # LND's code and its text for both: its clients look at them.
                raise RecodedError(error, grpc.StatusCode.NOT_FOUND, "peer is not connected") from None
            raise
        return pb.SendCustomMessageResponse(status=status)

    async def SubscribeCustomMessages(self, request: pb.SubscribeCustomMessagesRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder, self._types)

    async def GetInfo(self, request: pb.GetInfoRequest, call: Call) -> pb.GetInfoResponse:
        """Describe the node."""
        relay, deadline = self._core.relay, call.deadline
        info, peers = await asyncio.gather(
            relay.describe_node(call.caller, deadline), relay.list_peers(call.caller, deadline)
        )
        return convert.info_to_proto(info, peers)

    async def ListPeers(self, request: pb.ListPeersRequest, call: Call) -> pb.ListPeersResponse:
        """List the peers that the node is connected to."""
        peers = await self._core.relay.list_peers(call.caller, call.deadline)
        return pb.ListPeersResponse(peers=[convert.peer_to_proto(peer) for peer in peers if peer.connected])

    async def ConnectPeer(self, request: pb.ConnectPeerRequest, call: Call) -> pb.ConnectPeerResponse:
        """Have the node connect to a peer."""
        address = convert.address_from_proto(request.addr, self._core.relay.node_info)
        deadline = call.deadline
        if request.timeout:
            deadline = min(deadline, asyncio.get_running_loop().time() + request.timeout)
        await self._core.relay.connect(call.caller, address, deadline)
        return pb.ConnectPeerResponse(status=f"connection to {address} initiated")
