"""What every dialect does: send one message, and stream what arrives."""

from __future__ import annotations

from collections.abc import Callable

from custommsg_server.api.call import DELIVERED, Call
from custommsg_server.api.encoding import Encoder
from custommsg_server.core.mailbox import Mailbox, SubscribeRequest
from custommsg_server.core.relay import Relay
from custommsg_server.domain.events import Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from custommsg_server.node.port import Outbound


class DialectCore:
    """The gateway's core, as a dialect uses it: there is no other way from a dialect to the node.

    Args:
        relay: sends.
        mailbox: receives.
    """

    def __init__(self, relay: Relay, mailbox: Mailbox) -> None:
        self.relay = relay
        self._mailbox = mailbox

    async def send(self, parse: Callable[[], Outbound], call: Call) -> str:
        """Send one message.

        Args:
            parse: reads it, and its peer, from the request.
            call: the call.

        Returns:
            What the node said.

        Raises:
            RelayError: any reason that sending has.
        """
        call.is_send = True
        with call.stage("validate"):
            outbound = parse()
            call.names(outbound)
        return await self.relay.send(call.caller, outbound, call.deadline)

    async def stream_live(self, call: Call, encoder: Encoder, types: TypeSet | None = None) -> None:
        """Write each message that arrives from now on, until the caller leaves or the gateway stops.

        Initial metadata is sent once the subscription is registered: a client that waits for it misses nothing.

        Args:
            call: the call.
            encoder: encodes a message that has arrived.
            types: the types that are wanted; None: all.

        Raises:
            RelayError: INBOX_UNAVAILABLE, or POSITION_EXPIRED for a caller that is slower than the retention.
        """
        wanted = SubscribeRequest(Filter(types=types), Start.LIVE)
        subscription = await self._mailbox.subscribe(call.caller, wanted)
        try:
            await call.context.send_initial_metadata((("custommsg-position", subscription.position),))
            async for batch in subscription:
                for event in batch.events:
                    # An interruption passes every filter; these contracts have nothing to express it with.
                    if event.arrival.kind is Kind.MESSAGE:
                        await call.write(encoder.of(event))
                if batch.events:
                    call.count(DELIVERED, len(batch.events))
        finally:
            await subscription.aclose()
