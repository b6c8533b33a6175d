"""`greenlight.Node`: how Greenlight's clients receive, https://github.com/Blockstream/greenlight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from custommsg_server.api.dialects.core import Core
from custommsg_server.api.dialects.protos import greenlight_pb2 as pb
from custommsg_server.api.dialects.protos import greenlight_pb2_grpc
from custommsg_server.inbox.port import Arrival

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class GreenlightNode(greenlight_pb2_grpc.NodeServicer):
    """Serves `greenlight.Node` over the core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # A coroutine that writes, as all streams of this server.
    async def StreamCustommsg(  # type: ignore[override]
        self, request: pb.StreamCustommsgRequest, context: Context
    ) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(context, message_to_proto)


def message_to_proto(arrival: Arrival) -> pb.Custommsg:
    """Convert a message that has arrived."""
    return pb.Custommsg(peer_id=arrival.node_id, payload=arrival.message)
