"""What all dialects share: send one message, and stream messages that arrive."""

from __future__ import annotations

from collections.abc import Callable

from custommsg_server.api.call import DELIVERED, Call
from custommsg_server.api.encoding import Encoder
from custommsg_server.core.mailbox import Mailbox, SubscribeRequest
from custommsg_server.core.relay import Relay
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from custommsg_server.node.port import Outbound


class DialectCore:
    """The gateway's core, as dialects use it: their only way to the node.

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
            parse: parses the message and its peer from the request.
            call: the call.

        Returns:
            The status that the node returned.

        Raises:
            RelayError: any reason of sending.
        """
        call.is_send = True
        with call.stage("validate"):
            outbound = parse()
            call.names(outbound)
        return await self.relay.send(call.caller, outbound, call.deadline)

    async def stream_live(self, call: Call, encoder: Encoder, types: TypeSet | None = None) -> None:
        """Write each message that arrives from now on, until the caller cancels or the gateway stops.

        Initial metadata is sent when the subscription is registered: a client that waits for it misses nothing.

        Args:
            call: the call.
            encoder: encodes a message that has arrived.
            types: the types to stream; None: all.

        Raises:
            RelayError: INBOX_UNAVAILABLE, or POSITION_EXPIRED for a caller that is slower than the retention.
        """
        wanted = SubscribeRequest(Filter(types=types), Start.LIVE)
        subscription = await self._mailbox.subscribe(call.caller, wanted)
        try:
            await call.context.send_initial_metadata((("custommsg-position", subscription.position),))
            async for batch in subscription:
                # Interruptions match every filter, but these contracts cannot express them.
                if messages := encoder.messages_of(batch):
                    await call.write_all(messages)
                    call.count(DELIVERED, len(messages))
                del batch, messages  # nothing is kept for a subscriber that waits
        finally:
            await subscription.aclose()
