"""`cln.Node`, as in cln-grpc, and `greenlight.Node`, with which Greenlight's clients receive.

https://docs.corelightning.org/docs/grpc, https://github.com/Blockstream/greenlight
"""

from __future__ import annotations

from custommsg_server.api.call import Call
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.protos import cln_pb2, greenlight_pb2
from custommsg_server.api.encoding import Encoder
from custommsg_server.domain import wire
from custommsg_server.domain.events import Arrival
from custommsg_server.node.port import Outbound


class ClnNode:
    """Serves `cln.Node` over the core."""

    def __init__(self, core: DialectCore) -> None:
        self._core = core
        self._encoder = Encoder(lambda event: message_to_cln(event.arrival).SerializeToString())

    async def SendCustomMsg(
        self, request: cln_pb2.SendcustommsgRequest, call: Call
    ) -> cln_pb2.SendcustommsgResponse:
        """Send one custom message to one connected peer."""
        status = await self._core.send(lambda: outbound_from_proto(request), call)
        return cln_pb2.SendcustommsgResponse(status=status)

    async def SubscribeCustomMsg(self, request: cln_pb2.StreamCustomMsgRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder)


class GreenlightNode:
    """Serves `greenlight.Node` over the core."""

    def __init__(self, core: DialectCore) -> None:
        self._core = core
        self._encoder = Encoder(lambda event: message_to_greenlight(event.arrival).SerializeToString())

    async def StreamCustommsg(self, request: greenlight_pb2.StreamCustommsgRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder)


def outbound_from_proto(request: cln_pb2.SendcustommsgRequest) -> Outbound:
    """Parse the peer and the message.

    Raises:
        RelayError: INVALID_NODE_ID, INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE, with the invalid field.
    """
    return Outbound(wire.parse_node_id(request.node_id, "node_id"), wire.parse_message(request.msg))


def message_to_cln(arrival: Arrival) -> cln_pb2.CustomMsgNotification:
    """Convert a message that has arrived."""
    return cln_pb2.CustomMsgNotification(peer_id=arrival.peer_id, payload=arrival.message)


def message_to_greenlight(arrival: Arrival) -> greenlight_pb2.Custommsg:
    """Convert a message that has arrived."""
    return greenlight_pb2.Custommsg(peer_id=arrival.peer_id, payload=arrival.message)
