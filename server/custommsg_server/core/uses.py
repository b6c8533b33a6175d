"""Actions of callers as methods and parameters, which the restrictions of runes are compared with.

Where lightningd has such a command, the names are lightningd's. The peer is `node_id` here, as in lightningd's
sendcustommsg.
"""

from __future__ import annotations

import asyncio
from typing import Final

from custommsg_server.domain.caller import Use
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

SUBSCRIBE: Final = "subscribecustommsg"
LIST: Final = "listevents"
ENQUEUE: Final = "enqueuecustommsg"
GET_ENTRY: Final = "getoutboxentry"
LIST_OUTBOX: Final = "listoutbox"
CANCEL_ENTRY: Final = "canceloutboxentry"
CHECK_TIME: Final = 10.0
"""Seconds that the node may take to check a permission, if the call itself has no deadline."""


def check_deadline() -> float:
    """Return the deadline of a check that starts now, in seconds of the loop's clock."""
    return asyncio.get_running_loop().time() + CHECK_TIME


def send_use(outbound: Outbound, method: str = "sendcustommsg") -> Use:
    """Return the use of sending a message, as for `lightning-cli sendcustommsg`; or of enqueueing it."""
    return Use(method, {"node_id": outbound.peer_id.hex(), "msg": outbound.message.hex()})


def subscribe_use(
    peer_id: bytes | None, number: int | None, consumer: str | None, method: str = SUBSCRIBE
) -> Use:
    """Return the use of receiving events of a peer and of a type.

    `msg` is only the type, the first four hex digits of a message. So the same restriction to a type (`pnamemsg^9419`)
    works for sending and for subscribing.

    Args:
        peer_id: the peer; None: not given.
        number: the type of messages; None: not given.
        consumer: the name of the consumer; None: it has no name.
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
    """Return the use of receiving an event; only messages have a type, also those in the outbox."""
    has_type = arrival.kind in (Kind.MESSAGE, Kind.OUTBOX)
    number = message_type(arrival.message) if has_type else None
    return subscribe_use(arrival.peer_id, number, consumer, method)
