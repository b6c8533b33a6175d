"""`cln.Node`, as in cln-grpc, and `greenlight.Node`, with which Greenlight's clients receive.

https://docs.corelightning.org/docs/grpc, https://github.com/Blockstream/greenlight
"""

from __future__ import annotations

from custommsg_server.api.call import Call
from custommsg_server.api.dialects import cln_convert as convert
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.protos import cln_pb2, greenlight_pb2
from custommsg_server.api.encoding import Encoder
from custommsg_server.domain import wire


class ClnNode:
    """Serves `cln.Node` over the core."""

    def __init__(self, core: DialectCore) -> None:
        self._core = core
        self._encoder = Encoder(lambda event: convert.message_to_cln(event.arrival).SerializeToString())

    async def SendCustomMsg(
        self, request: cln_pb2.SendcustommsgRequest, call: Call
    ) -> cln_pb2.SendcustommsgResponse:
        """Send one custom message to one connected peer."""
        status = await self._core.send(lambda: convert.outbound_from_proto(request), call)
        return cln_pb2.SendcustommsgResponse(status=status)

    async def SubscribeCustomMsg(self, request: cln_pb2.StreamCustomMsgRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder)

    async def Getinfo(self, request: cln_pb2.GetinfoRequest, call: Call) -> cln_pb2.GetinfoResponse:
        """Describe the node."""
        return convert.info_to_proto(await self._core.relay.describe_node(call.caller, call.deadline))

    async def ListPeers(self, request: cln_pb2.ListpeersRequest, call: Call) -> cln_pb2.ListpeersResponse:
        """List the peers that the node knows."""
        peers = await self._core.relay.list_peers(call.caller, call.deadline)
        return cln_pb2.ListpeersResponse(
            peers=[convert.peer_to_proto(one) for one in peers if request.id in (b"", one.peer_id)]
        )

    async def ConnectPeer(self, request: cln_pb2.ConnectRequest, call: Call) -> cln_pb2.ConnectResponse:
        """Have the node connect to a peer."""
        address = convert.address_from_proto(request)
        connected = await self._core.relay.connect(call.caller, address, call.deadline)
        return convert.connected_to_proto(address.peer_id, connected)

    async def Disconnect(self, request: cln_pb2.DisconnectRequest, call: Call) -> cln_pb2.DisconnectResponse:
        """Have the node disconnect from a peer."""
        peer_id = wire.parse_node_id(request.id, "id")
        await self._core.relay.disconnect(call.caller, peer_id, request.force, call.deadline)
        return cln_pb2.DisconnectResponse()


class GreenlightNode:
    """Serves `greenlight.Node` over the core."""

    def __init__(self, core: DialectCore) -> None:
        self._core = core
        self._encoder = Encoder(
            lambda event: convert.message_to_greenlight(event.arrival).SerializeToString()
        )

    async def StreamCustommsg(self, request: greenlight_pb2.StreamCustommsgRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder)
