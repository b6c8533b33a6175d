"""The core behind its door: the same halves, which ask for a permit before they do anything.

The names of the methods are lightningd's where it has such a command, and ours elsewhere; a rune is held to them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from typing import Final

from custommsg_server.core.limits import FRAMING
from custommsg_server.core.mailbox import ConsumerState, Mailbox, State, Wish
from custommsg_server.core.relay import Relay, wait_until
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.permit import Permit, current, require
from custommsg_server.domain.wire import message_type
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Kind
from custommsg_server.inbox.sqlite.feed import Batch, Subscription
from custommsg_server.node.port import NodeInfo, Outbound, Peer, PeerAddress, Use

CHECK_TIME: Final = 10.0
"""Seconds that the node may take for a verdict where the call itself has no deadline."""
MAX_CANDIDATES: Final = 64
"""Pairs of peer and type that are judged one by one when a subscription begins; what is wider begins unjudged,
and each event is judged anyway."""
NOT_PRESENT: Final = "not present"
"""lightningd's words when a rune speaks of a parameter that a call has not."""

_consumer: ContextVar[str | None] = ContextVar("consumer", default=None)
"""The name under which the task's call subscribes."""


class GuardedRelay(Relay):
    """Sends for callers that may send."""

    async def send(self, outbound: Outbound, deadline: float) -> str:
        """Queue a message with the node, if the caller may."""
        await require(send_use(outbound), deadline)
        current().take(1, len(outbound.message) + FRAMING)
        return await super().send(outbound, deadline)

    async def admit(self, batch: Sequence[Outbound], deadline: float) -> Sequence[RelayError | None] | None:
        """Wait until the limits allow what the caller may send of a batch; the rest is refused."""
        permit = current()
        refusals = await permit.judge([send_use(one) for one in batch], min(deadline, _soon()))
        allowed = [one for one, refusal in zip(batch, refusals, strict=True) if refusal is None]
        size = sum(len(one.message) + FRAMING for one in allowed)
        try:
            if wait := permit.reserve(len(allowed), size):
                await wait_until(asyncio.get_running_loop().time() + wait, deadline)
            await super().admit(allowed, deadline)
        except BaseException:
            permit.give_back(len(allowed), size)
            raise
        return refusals

    async def begin_stream(self, deadline: float) -> None:
        """Let a stream begin, if the caller's credential is one: what it may send is judged by each message."""
        permit = current()
        if permit.is_rated:
            return  # to ask would count as a use
        [refusal] = await permit.judge([Use("sendcustommsg", {})], min(deadline, _soon()))
        if refusal is not None and refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal

    async def check(self, outbound: Outbound, deadline: float) -> str:
        """Run every check on a message, that of the caller's permit included."""
        await require(send_use(outbound), deadline)
        return await super().check(outbound, deadline)

    async def list_peers(self, deadline: float) -> list[Peer]:
        """List the peers, if the caller may."""
        await require(Use("listpeers", {}), deadline)
        return await super().list_peers(deadline)

    async def describe_node(self, deadline: float) -> NodeInfo:
        """Ask the node to describe itself, if the caller may."""
        await require(Use("getinfo", {}), deadline)
        return await super().describe_node(deadline)

    async def last_seen(self, deadline: float) -> tuple[bool, NodeInfo | None]:
        """Return what is known of the node, if the caller may know it."""
        await require(Use("getinfo", {}), deadline)
        return await super().last_seen(deadline)

    async def connect(self, address: PeerAddress, deadline: float) -> None:
        """Have the node connect to a peer, if the caller may."""
        where: dict[str, str | int] = {"host": address.host, "port": address.port}
        await require(Use("connect", {"id": address.node_id.hex()} | where), deadline)
        await super().connect(address, deadline)


class GuardedMailbox(Mailbox):
    """Serves callers that may receive, and each only what it may see."""

    async def subscribe(self, wish: Wish) -> Subscription:
        """Register a subscriber, if there is anything that it may see."""
        await _may_begin(wish, current())
        _consumer.set(wish.consumer)
        return await super().subscribe(wish)

    async def batches(self, subscription: Subscription) -> AsyncIterator[Batch]:
        """Give out what the caller may see of a subscription; the positions go on regardless."""
        permit, consumer = current(), _consumer.get()
        async for batch in super().batches(subscription):
            uses = {
                _key(event.arrival): event_use(event.arrival, consumer)
                for event in batch.events
                if event.arrival.kind is not Kind.INTERRUPTION
            }
            verdicts = dict(zip(uses, await permit.sees(list(uses.values()), _soon()), strict=True))
            seen = [event for event in batch.events if verdicts.get(_key(event.arrival), True)]
            yield batch if len(seen) == len(batch.events) else Batch(seen, batch.position)

    async def acknowledge(self, consumer: str, sequence: int) -> int:
        """Store how far a consumer has come, if the caller may."""
        await require(Use("ackcustommsg", {"consumer": consumer}), _soon())
        return await super().acknowledge(consumer, sequence)

    async def forget(self, consumer: str) -> None:
        """Forget a consumer, if the caller may."""
        await require(Use("deleteconsumer", {"consumer": consumer}), _soon())
        await super().forget(consumer)

    async def consumers(self) -> list[ConsumerState]:
        """List the consumers, if the caller may."""
        await require(Use("listconsumers", {}), _soon())
        return await super().consumers()

    async def state(self) -> State:
        """Return what the inbox holds, if the caller may know it."""
        await require(Use("getinbox", {}), _soon())
        return await super().state()


def send_use(outbound: Outbound) -> Use:
    """Say that a message is to be sent, as `lightning-cli sendcustommsg` would."""
    return Use("sendcustommsg", {"node_id": outbound.node_id.hex(), "msg": outbound.message.hex()})


def subscribe_use(node_id: bytes | None, number: int | None, consumer: str | None) -> Use:
    """Say that events of a peer and of a type are to be received.

    `msg` is the type alone, as the four hex digits with which a message begins: so the condition that holds a
    sender to a type (`pnamemsg^9419`) holds a subscriber to it, too.
    """
    params: dict[str, str | int] = {}
    if node_id is not None:
        params["node_id"] = node_id.hex()
    if number is not None:
        params |= {"msg": f"{number:04x}", "type": number}
    if consumer is not None:
        params["consumer"] = consumer
    return Use("subscribecustommsg", params)


def event_use(arrival: Arrival, consumer: str | None) -> Use:
    """Say that an event is to be seen; a peer's coming and going has no type."""
    node_id, number = _key(arrival)
    return subscribe_use(node_id, number, consumer)


def _key(arrival: Arrival) -> tuple[bytes, int | None]:
    return arrival.node_id, message_type(arrival.message) if arrival.kind is Kind.MESSAGE else None


async def _may_begin(wish: Wish, permit: Permit) -> None:
    if permit.is_rated:
        raise RelayError(
            Reason.NOT_PERMITTED,
            "A rune with a rate cannot subscribe: each look at another peer or type would count as a use."
            " Make one without `rate` and `per`.",
        )
    uses = [subscribe_use(*pair, wish.consumer) for pair in _candidates(wish.filter)]
    refusals = await permit.judge(uses, _soon())
    for refusal in refusals:
        if refusal is None:
            return
        if refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal
        if NOT_PRESENT in refusal.message:  # it depends on what arrives
            return
    if refusals[0] is not None:
        raise refusals[0]


def _candidates(wanted: Filter) -> list[tuple[bytes | None, int | None]]:
    node_ids: Sequence[bytes | None] = sorted(wanted.node_ids) or [None]
    types: Sequence[int | None] = [None]
    if wanted.types and sum(map(len, wanted.types)) <= MAX_CANDIDATES:
        types = sorted(set(itertools.chain.from_iterable(wanted.types)))
    pairs = list(itertools.product(node_ids[: MAX_CANDIDATES + 1], types))
    return pairs if len(pairs) <= MAX_CANDIDATES else [(None, None)]


def _soon() -> float:
    return asyncio.get_running_loop().time() + CHECK_TIME
