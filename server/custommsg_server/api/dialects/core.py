"""What every dialect does, whatever its words: send one message, and stream what arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from custommsg_server.api.call import DELIVERED, current
from custommsg_server.api.deadline import Deadlines
from custommsg_server.core.mailbox import Mailbox, Wish
from custommsg_server.core.relay import Relay
from custommsg_server.domain.stages import stage
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Kind
from custommsg_server.inbox.position import Start
from custommsg_server.node.port import Outbound

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Core:
    """The gateway's core, as a dialect uses it: there is no other way from a dialect to the node.

    Args:
        relay: its sending half.
        mailbox: its receiving half.
        deadlines: says how long a call may take.
    """

    def __init__(self, relay: Relay, mailbox: Mailbox, deadlines: Deadlines) -> None:
        self.relay = relay
        self._mailbox = mailbox
        self._deadlines = deadlines

    def deadline(self, context: Context) -> float:
        """Return when to give up on a call, in seconds of the loop's clock."""
        return self._deadlines.of(context)

    async def send(self, parse: Callable[[], Outbound], context: Context) -> str:
        """Send one message.

        Args:
            parse: reads it, and its peer, from the request.
            context: the call.

        Returns:
            What the node said.

        Raises:
            RelayError: any reason that sending has.
        """
        call = current()
        call.is_send = True
        with stage("validate"):
            outbound = parse()
            call.names(outbound)
        return await self.relay.send(outbound, self.deadline(context))

    async def stream_live(
        self, context: Context, to_proto: Callable[[Arrival], Any], types: tuple[range, ...] = ()
    ) -> None:
        """Write each message that arrives from now on, until the caller leaves or the gateway stops.

        Initial metadata is sent once the subscription is registered: a client that waits for it misses nothing.

        Args:
            context: the call.
            to_proto: converts a message that has arrived.
            types: the types that are wanted; none: all.

        Raises:
            RelayError: INBOX_UNAVAILABLE, or POSITION_EXPIRED for a caller that is too slow for the retention.
        """
        wanted = Filter(types=types, kinds=frozenset({Kind.MESSAGE}))
        subscription = await self._mailbox.subscribe(Wish(wanted, Start.LIVE))
        await context.send_initial_metadata((("custommsg-position", str(subscription.position)),))
        call = current()
        async for batch in self._mailbox.batches(subscription):
            for event in batch.events:
                # An interruption passes every filter; these contracts have no word for it.
                if event.arrival.kind is Kind.MESSAGE:
                    await context.write(to_proto(event.arrival))
                    call.count(DELIVERED)
