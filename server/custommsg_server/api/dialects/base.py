"""The common part of all dialects: send one message, and stream messages that arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from custommsg_server.api.call import DELIVERED, Call
from custommsg_server.api.encoding import Encoder
from custommsg_server.core.mailbox import Mailbox, SubscribeRequest
from custommsg_server.core.relay import Relay
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from custommsg_server.node.port import Outbound

_MESSAGES: Final = Filter()


class DialectCore:
    """The core for the dialects."""

    def __init__(self, relay: Relay, mailbox: Mailbox) -> None:
        self.relay = relay
        self._mailbox = mailbox

    async def send(self, parse: Callable[[], Outbound], call: Call) -> str:
        """Send the message that `parse` reads from the request; return the status from the node. Raises RelayError."""
        call.is_send = True
        with call.stage("validate"):
            outbound = parse()
            call.names(outbound)
        return await self.relay.send(call.caller, outbound, call.deadline)

    async def stream_live(self, call: Call, encoder: Encoder, wanted: Filter = _MESSAGES) -> None:
        """Write each event that arrives from now on, until the caller cancels or the gateway stops.

        Initial metadata is sent when the subscription is registered: a client that waits for it misses nothing.

        Args:
            call: the call.
            encoder: encodes an event.
            wanted: the events to stream; by default all messages.

        Raises:
            RelayError: INBOX_UNAVAILABLE, or POSITION_EXPIRED for a caller that is slower than the retention.
        """
        subscription = await self._mailbox.subscribe(call.caller, SubscribeRequest(wanted, Start.LIVE))
        try:
            await call.begin((("custommsg-position", subscription.position),))
            async for batch in subscription:
                # Every filter matches interruptions, but these contracts cannot express them.
                if events := encoder.each_of(batch):
                    await call.write_all(events)
                    call.count(DELIVERED, len(events))
                del batch, events  # an idle subscriber holds no memory
        finally:
            await subscription.aclose()
