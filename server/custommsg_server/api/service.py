"""The servicer of custommsg.v1.CustomMsgService: each RPC is parse, call the core, convert."""

from __future__ import annotations

import time
from typing import Any, Final, cast

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api import convert, outbox_convert
from custommsg_server.api.call import DELIVERED, Call
from custommsg_server.api.encoding import batch_encoder
from custommsg_server.api.enqueue_stream import EnqueueStream
from custommsg_server.api.pages import page_of, page_size
from custommsg_server.api.stream import SendStream
from custommsg_server.core.mailbox import Mailbox
from custommsg_server.core.queueing import Queueing
from custommsg_server.core.relay import Relay
from custommsg_server.domain.outbox import Draft, Entry
from custommsg_server.domain.wire import message_type
from custommsg_server.inbox.port import Batch, Position
from custommsg_server.node.port import Outbound
from custommsg_server.outbox.port import Wanted

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["CustomMsgService"].full_name


class CustomMsgService:
    """Serves the contract over the core."""

    services = (SERVICE,)

    def __init__(
        self, relay: Relay, mailbox: Mailbox, queueing: Queueing, expiry: outbox_convert.Expiry, version: str
    ) -> None:
        self._relay = relay
        self._queueing = queueing
        self._expiry = expiry
        self._mailbox = mailbox
        self._version = version
        self._encode = batch_encoder()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it. `Calls` passes a `Call` to each method, instead of gRPC's context."""
        custommsg_pb2_grpc.add_CustomMsgServiceServicer_to_server(cast("Any", self), server)

    async def SendCustomMsg(self, request: pb.SendCustomMsgRequest, call: Call) -> pb.SendCustomMsgResponse:
        """Send one custom message to one connected peer."""
        call.is_send = not request.validate_only
        with call.stage("validate"):
            self._relay.serves(request.message.node_id)
            outbound = convert.outbound_from_proto(request.message)
            call.names(outbound)
            key = convert.key_from_proto(request.message.idempotency_key)
        if request.validate_only:
            status = await self._relay.check(call.caller, outbound, call.deadline)
        else:
            status = await self._relay.send(call.caller, outbound, call.deadline, key)
        return pb.SendCustomMsgResponse(status=status, type=message_type(outbound.message))

    # Streams are coroutines that write, so that the whole call runs within its wrapper (`Calls`).

    async def SendCustomMsgStream(self, requests: Any, call: Call) -> None:
        """Send many messages on one stream."""
        await SendStream(self._relay, call).run()

    async def EnqueueCustomMsg(
        self, request: pb.EnqueueCustomMsgRequest, call: Call
    ) -> pb.EnqueueCustomMsgResponse:
        """Put one message into the outbox."""
        draft = self._draft(request.message)
        call.names(Outbound(draft.peer_id, draft.message))
        enqueued = await self._queueing.enqueue(call.caller, draft)
        return outbox_convert.enqueued_to_proto(enqueued)

    async def EnqueueCustomMsgStream(self, requests: Any, call: Call) -> None:
        """Put many messages into the outbox on one stream."""
        await EnqueueStream(self._queueing, self._relay.memory, call, self._draft).run()

    def _draft(self, request: pb.OutboxMsg) -> Draft:
        self._relay.serves(request.outbound.node_id)
        outbound = convert.outbound_from_proto(request.outbound)
        key = convert.key_from_proto(request.outbound.idempotency_key)
        return outbox_convert.draft_from_proto(request, outbound, key, self._expiry, time.time_ns())

    async def GetOutboxEntry(
        self, request: pb.GetOutboxEntryRequest, call: Call
    ) -> pb.GetOutboxEntryResponse:
        """Return an entry of the outbox."""
        entry = await self._queueing.find(call.caller, request.entry_id, request.idempotency_key)
        return pb.GetOutboxEntryResponse(entry=self._entry(entry))

    async def ListOutbox(self, request: pb.ListOutboxRequest, call: Call) -> pb.ListOutboxResponse:
        """List entries of the outbox, one page at a time."""
        self._relay.serves(request.node_id)
        size = page_size(request.page_size, default=100, most=1000)
        wanted = Wanted(
            outbox_convert.states_from_proto(list(request.states)),
            convert.peers_from_proto(request.peer_ids, request.peer_ids_hex),
        )
        page = await self._queueing.page(call.caller, wanted, request.page_token, size)
        return pb.ListOutboxResponse(entries=map(self._entry, page.entries), next_page_token=page.next)

    async def CancelOutboxEntry(
        self, request: pb.CancelOutboxEntryRequest, call: Call
    ) -> pb.CancelOutboxEntryResponse:
        """Cancel an entry of the outbox that waits."""
        entry = await self._queueing.cancel(call.caller, request.entry_id, request.idempotency_key)
        return pb.CancelOutboxEntryResponse(entry=self._entry(entry))

    def _entry(self, entry: Entry) -> pb.OutboxEntry:
        info = self._relay.node_info
        return outbox_convert.entry_to_proto(entry, info.node_id if info else b"")

    async def SubscribeCustomMsgs(self, request: pb.SubscribeCustomMsgsRequest, call: Call) -> None:
        """Subscribe to what peers send to the node."""
        self._relay.serves(request.node_id)
        await self._mailbox.prove(call.caller)
        subscription = await self._mailbox.subscribe(call.caller, convert.subscribe_from_proto(request))
        try:
            await call.begin()
            await call.write(self._encode(Batch((), subscription.position)))
            async for batch in subscription:
                await call.write(self._encode(batch))
                if batch.events:
                    call.count(DELIVERED, len(batch.events))
                del batch  # an idle subscriber holds no memory
        finally:
            await subscription.aclose()

    async def ListEvents(self, request: pb.ListEventsRequest, call: Call) -> pb.ListEventsResponse:
        """List stored events, one page at a time."""
        self._relay.serves(request.node_id)
        await self._mailbox.prove(call.caller)
        wanted = convert.filter_from_proto(request.filter)
        size = page_size(request.page_size, default=100, most=1000)
        after = request.page_token or request.after
        batch = await self._mailbox.list_events(call.caller, wanted, Position(after) if after else None, size)
        return pb.ListEventsResponse(
            events=convert.events_to_proto(batch.events),
            next_page_token="" if batch.is_last else batch.position,
        )

    async def AckCustomMsgs(self, request: pb.AckCustomMsgsRequest, call: Call) -> pb.AckCustomMsgsResponse:
        """Store the acknowledged position of a named consumer."""
        name = convert.consumer_from_proto(request.consumer)
        position = await self._mailbox.acknowledge(call.caller, name, Position(request.position))
        return pb.AckCustomMsgsResponse(position=position)

    async def ListConsumers(self, request: pb.ListConsumersRequest, call: Call) -> pb.ListConsumersResponse:
        """List the named consumers and their positions."""
        size = page_size(request.page_size, default=100, most=1000)
        consumers = await self._mailbox.consumers(call.caller)
        page, token = page_of(consumers, lambda one: one.name.encode(), size, request.page_token)
        return pb.ListConsumersResponse(consumers=map(convert.consumer_to_proto, page), next_page_token=token)

    async def DeleteConsumer(
        self, request: pb.DeleteConsumerRequest, call: Call
    ) -> pb.DeleteConsumerResponse:
        """Delete a named consumer and its position."""
        await self._mailbox.delete_consumer(call.caller, convert.consumer_from_proto(request.consumer))
        return pb.DeleteConsumerResponse()

    async def GetInbox(self, request: pb.GetInboxRequest, call: Call) -> pb.GetInboxResponse:
        """Describe the content of the inbox."""
        self._relay.serves(request.node_id)
        return convert.inbox_to_proto(await self._mailbox.state(call.caller))

    async def ListPeers(self, request: pb.ListPeersRequest, call: Call) -> pb.ListPeersResponse:
        """List the peers that the node knows now."""
        self._relay.serves(request.node_id)
        size = page_size(request.page_size, default=1000, most=10_000)
        peers = await self._relay.list_peers(call.caller, call.deadline)
        page, token = page_of(peers, lambda one: one.peer_id, size, request.page_token)
        return pb.ListPeersResponse(peers=map(convert.peer_to_proto, page), next_page_token=token)

    async def GetInfo(self, request: pb.GetInfoRequest, call: Call) -> pb.GetInfoResponse:
        """Describe the gateway, its node, and the link between them."""
        self._relay.serves(request.node_id)
        is_up, info = await self._relay.last_seen(call.caller, call.deadline)
        return pb.GetInfoResponse(
            gateway_version=self._version,
            node_link_up=is_up,
            node=convert.node_to_proto(info) if info else None,
        )
