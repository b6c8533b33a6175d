"""The methods of LND for custom messages, peers and starting up: https://lightning.engineering/api-docs/api/lnd."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from custommsg_server.api.call import Call
from custommsg_server.api.dialects import lnd_convert as convert
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.api.dialects.protos import verrpc_pb2
from custommsg_server.api.encoding import Encoder
from custommsg_server.api.status import RecodedError
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_AWAY = frozenset({Reason.PEER_UNKNOWN, Reason.PEER_NOT_CONNECTED})


class LndLightning:
    """Serves `lnrpc.Lightning` over the core.

    Args:
        core: the core.
        types: the types of messages that it sends and streams.
    """

    def __init__(self, core: DialectCore, types: TypeSet) -> None:
        self._core = core
        self._types = types
        self._encoder = Encoder(lambda event: convert.message_to_proto(event.arrival).SerializeToString())
        self._peer_events = Encoder(
            lambda event: convert.peer_event_to_proto(event.arrival).SerializeToString()
        )

    async def SendCustomMessage(
        self, request: pb.SendCustomMessageRequest, call: Call
    ) -> pb.SendCustomMessageResponse:
        """Send one custom message to one connected peer."""
        try:
            status = await self._core.send(lambda: convert.outbound_from_proto(request, self._types), call)
        except RelayError as error:
            if error.reason in _AWAY:
                # LND's code and text for both, which its clients compare.
                raise RecodedError(error, grpc.StatusCode.NOT_FOUND, "peer is not connected") from None
            raise
        return pb.SendCustomMessageResponse(status=status)

    async def SubscribeCustomMessages(self, request: pb.SubscribeCustomMessagesRequest, call: Call) -> None:
        """Stream the custom messages that peers send from now on."""
        await self._core.stream_live(call, self._encoder, Filter(types=self._types))

    async def SubscribePeerEvents(self, request: pb.PeerEventSubscription, call: Call) -> None:
        """Stream the connects and disconnects of peers from now on."""
        await self._core.stream_live(call, self._peer_events, Filter(types=TypeSet(()), peer_events=True))

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

    async def DisconnectPeer(
        self, request: pb.DisconnectPeerRequest, call: Call
    ) -> pb.DisconnectPeerResponse:
        """Have the node disconnect from a peer, as LND does even if it has a channel."""
        peer_id = wire.parse_node_id_hex(request.pub_key, "pub_key")
        try:
            await self._core.relay.disconnect(call.caller, peer_id, True, call.deadline)
        except RelayError as error:
            if error.reason in _AWAY:
                text = "unable to disconnect peer: peer is not connected"
                raise RecodedError(error, grpc.StatusCode.NOT_FOUND, text) from None
            raise
        return pb.DisconnectPeerResponse(status="disconnect initiated")

    async def GetNodeInfo(self, request: pb.NodeInfoRequest, call: Call) -> pb.NodeInfo:
        """Describe any node of the network, as far as gossip tells."""
        node_id = wire.parse_node_id_hex(request.pub_key, "pub_key")
        node = await self._core.relay.find_node(call.caller, node_id, call.deadline)
        if node is None:
            raise RelayError(Reason.PEER_UNKNOWN, "unable to find node", field="pub_key")  # LND's text
        return convert.announcement_to_proto(node)


class LndVersioner:
    """Serves `verrpc.Versioner`.

    Args:
        core: the core.
        version: of the gateway.
    """

    def __init__(self, core: DialectCore, version: str) -> None:
        self._core = core
        self._version = version

    async def GetVersion(self, request: verrpc_pb2.VersionRequest, call: Call) -> verrpc_pb2.Version:
        """Return the version of LND whose contract is served."""
        _, node = await self._core.relay.last_seen(call.caller, call.deadline)
        return convert.version_to_proto(node, self._version)


class LndState:
    """Serves `lnrpc.State`, which needs no credential, as in LND: its methods get gRPC's own context."""

    def __init__(self, core: DialectCore) -> None:
        self._is_up = False
        self._changed = asyncio.Event()
        core.relay.watch_node(self._node_changed)

    async def GetState(self, request: pb.GetStateRequest, context: Context) -> pb.GetStateResponse:
        """Return whether the node answers."""
        return pb.GetStateResponse(state=self._state)

    async def SubscribeState(self, request: pb.SubscribeStateRequest, context: Context) -> None:
        """Stream whether the node answers, now and whenever it changes."""
        while True:
            changed = self._changed
            await context.write(pb.SubscribeStateResponse(state=self._state))
            await changed.wait()

    @property
    def _state(self) -> pb.WalletState.ValueType:
        return pb.SERVER_ACTIVE if self._is_up else pb.RPC_ACTIVE

    def _node_changed(self, is_up: bool) -> None:
        self._is_up = is_up
        self._changed.set()
        self._changed = asyncio.Event()
