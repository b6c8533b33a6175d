"""The servicer of custommsg.v1.CustomMsgService: each RPC is parse, call the core, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api import convert, subscriptions
from custommsg_server.api.call import DELIVERED, current
from custommsg_server.api.deadline import Deadlines
from custommsg_server.api.stream import SendStream
from custommsg_server.core.mailbox import Mailbox
from custommsg_server.core.relay import Relay
from custommsg_server.domain.stages import stage
from custommsg_server.domain.wire import message_type

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class CustomMsgService(custommsg_pb2_grpc.CustomMsgServiceServicer):
    """Serves the contract over the core.

    Args:
        relay: the core's sending half.
        mailbox: its receiving half.
        deadlines: says how long a call may take.
        version: the gateway's own version.
    """

    def __init__(self, relay: Relay, mailbox: Mailbox, deadlines: Deadlines, version: str) -> None:
        self._relay = relay
        self._mailbox = mailbox
        self._deadlines = deadlines
        self._version = version

    async def SendCustomMsg(
        self, request: pb.SendCustomMsgRequest, context: Context
    ) -> pb.SendCustomMsgResponse:
        """Send one custom message to one connected peer."""
        call = current()
        call.is_send = not request.validate_only
        with stage("validate"):
            outbound = convert.outbound_from_proto(request)
            call.names(outbound)
        act = self._relay.check if request.validate_only else self._relay.send
        status = await act(outbound, self._deadlines.of(context))
        return pb.SendCustomMsgResponse(status=status, type=message_type(outbound.message))

    # Streams are coroutines that write, so that all of a call happens within its interceptor; grpc.aio takes
    # both, the generated types know generators alone.
    async def SendCustomMsgStream(  # type: ignore[override]
        self, request_iterator: Any, context: Context
    ) -> None:
        """Send many messages on one stream."""
        await SendStream(self._relay, context, self._deadlines.of_stream(context)).run()

    async def SubscribeCustomMsgs(  # type: ignore[override]
        self, request: pb.SubscribeCustomMsgsRequest, context: Context
    ) -> None:
        """Subscribe to what peers send to the node."""
        subscription = await self._mailbox.subscribe(subscriptions.wish_from_proto(request))
        await context.send_initial_metadata(
            (
                ("custommsg-inbox-id", self._mailbox.inbox_id),
                ("custommsg-position", str(subscription.position)),
            )
        )
        call = current()
        async for batch in self._mailbox.batches(subscription):
            await context.write(subscriptions.batch_to_proto(batch))
            if batch.events:
                call.count(DELIVERED, len(batch.events))

    async def AckCustomMsgs(
        self, request: pb.AckCustomMsgsRequest, context: Context
    ) -> pb.AckCustomMsgsResponse:
        """Store how far a named consumer has come."""
        name = subscriptions.consumer_from_proto(request.consumer)
        return pb.AckCustomMsgsResponse(position=await self._mailbox.acknowledge(name, request.sequence))

    async def ListConsumers(
        self, request: pb.ListConsumersRequest, context: Context
    ) -> pb.ListConsumersResponse:
        """List the named consumers and how far each has come."""
        states = await self._mailbox.consumers()
        return pb.ListConsumersResponse(consumers=map(subscriptions.consumer_to_proto, states))

    async def DeleteConsumer(
        self, request: pb.DeleteConsumerRequest, context: Context
    ) -> pb.DeleteConsumerResponse:
        """Forget a named consumer."""
        await self._mailbox.forget(subscriptions.consumer_from_proto(request.consumer))
        return pb.DeleteConsumerResponse()

    async def GetInbox(self, request: pb.GetInboxRequest, context: Context) -> pb.GetInboxResponse:
        """Say what the inbox holds now."""
        return subscriptions.inbox_to_proto(await self._mailbox.state())

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        """List the peers that the node knows now."""
        peers = await self._relay.list_peers(self._deadlines.of(context))
        return pb.ListPeersResponse(peers=map(convert.peer_to_proto, peers))

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:
        """Describe the gateway, its node, and the link between the two."""
        is_up, info = await self._relay.last_seen(self._deadlines.of(context))
        return pb.GetInfoResponse(
            gateway_version=self._version,
            node_link_up=is_up,
            node=convert.node_to_proto(info) if info else None,
        )
