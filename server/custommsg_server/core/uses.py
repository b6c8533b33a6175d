"""Actions of callers as methods and parameters, which the restrictions of runes are compared with.

Where lightningd has such a command, the names are lightningd's. The peer is `node_id` here, as in lightningd's
sendcustommsg.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from custommsg_server.domain.caller import Caller, Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

SUBSCRIBE: Final = "subscribecustommsg"
LIST: Final = "listevents"
ENQUEUE: Final = "enqueuecustommsg"
GET_ENTRY: Final = "getoutboxentry"
LIST_OUTBOX: Final = "listoutbox"
CANCEL_ENTRY: Final = "canceloutboxentry"
_NOT_PRESENT: Final = "not present"
"""lightningd's text if a rune restricts a parameter that the use does not have."""
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


async def permitted(caller: Caller, uses: Sequence[Use]) -> list[bool]:
    """Return whether the caller has the permission for each use.

    Raises:
        RelayError: the check failed, or the credential is no longer valid.
    """
    refusals = await caller.permit.judge(uses, check_deadline())
    for refusal in refusals:
        if refusal is not None and refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal
    return [refusal is None for refusal in refusals]


async def require_any(caller: Caller, uses: Sequence[Use]) -> None:
    """Return if the caller has the permission for one of the uses, or may have it once more parameters are known.

    Raises:
        RelayError: NOT_PERMITTED: for none of them. Or the check failed, or the credential is no longer valid.
    """
    if caller.permit.is_unrestricted:
        return
    refusals = await caller.permit.judge(uses, check_deadline())
    for refusal in refusals:
        if refusal is None:
            return
        if refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal
        if _NOT_PRESENT in refusal.message:
            return
    if refusals[0] is not None:
        raise refusals[0]


def refuse_rated(caller: Caller, what: str) -> None:
    """Refuse a rune that the node has to check at each use.

    Args:
        caller: the caller.
        what: what cannot be done with it, and why.

    Raises:
        RelayError: NOT_PERMITTED.
    """
    if caller.permit.asks_node:
        raise RelayError(
            Reason.NOT_PERMITTED,
            f"A rune that the node checks at each use cannot {what}. Make a rune with restrictions on `time`, `method`"
            " and parameters only, without `rate` and `per`.",
        )
