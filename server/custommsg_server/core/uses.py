"""What callers do, in the words of runes: methods and parameters.

The names are lightningd's where it has such a command, and ours elsewhere; the restrictions of a rune are held against
them. A peer is called `node_id` here, as lightningd's sendcustommsg calls it.
"""

from __future__ import annotations

from typing import Final

from custommsg_server.domain.caller import Use
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

SUBSCRIBE: Final = "subscribecustommsg"
LIST: Final = "listevents"


def send_use(outbound: Outbound) -> Use:
    """Return the use of sending a message, as `lightning-cli sendcustommsg` would."""
    return Use("sendcustommsg", {"node_id": outbound.peer_id.hex(), "msg": outbound.message.hex()})


def subscribe_use(
    peer_id: bytes | None, number: int | None, consumer: str | None, method: str = SUBSCRIBE
) -> Use:
    """Return the use of receiving events of a peer and of a type.

    `msg` is the type alone, as the four hex digits with which a message begins: so the restriction that holds a
    sender to a type (`pnamemsg^9419`) holds a subscriber to it, too.

    Args:
        peer_id: the peer; None: not said.
        number: the type of messages; None: not said.
        consumer: the name of the consumer that subscribes; None: it has no name.
        method: SUBSCRIBE or LIST.
    """
    params: dict[str, str | int] = {}
    if peer_id is not None:
        params["node_id"] = peer_id.hex()
    if number is not None:
        params |= {"msg": f"{number:04x}", "type": number}
    if consumer is not None:
        params["consumer"] = consumer
    return Use(method, params)


def event_use(arrival: Arrival, consumer: str | None, method: str = SUBSCRIBE) -> Use:
    """Return the use of seeing an event; one that is not a message has no type."""
    number = message_type(arrival.message) if arrival.kind is Kind.MESSAGE else None
    return subscribe_use(arrival.peer_id, number, consumer, method)
