"""Sending: from callers through the limits to the node."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from custommsg_server.core.limits import FRAMING, PeerLimits
from custommsg_server.core.memory import MemoryBudget, weight
from custommsg_server.core.once import Once
from custommsg_server.core.uses import check_deadline, send_use
from custommsg_server.domain.caller import Caller, Use
from custommsg_server.domain.errors import Reason, RelayError, not_sent
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.port import Announcement, Connected, Node, NodeInfo, Outbound, Peer, PeerAddress

CHECKED: Final = "Checked, not sent"
"""The status of a message that was only validated."""


class Relay:
    """Sends messages to peers through a node, for callers with permission.

    Deadlines are in seconds of the running loop's clock.

    Args:
        node: the node.
        limits: the limits of each peer.
        memory: limits the messages that wait for the node.
        once: sends messages that have idempotency keys.
    """

    def __init__(self, node: Node, limits: PeerLimits, memory: MemoryBudget, once: Once) -> None:
        self._node = node
        self._once = once
        self._limits = limits
        self.memory = memory

    async def send(self, caller: Caller, outbound: Outbound, deadline: float, key: str = "") -> str:
        """Queue a message with the node.

        Args:
            caller: who sends it.
            outbound: the message.
            deadline: when the outcome has to be known.
            key: the caller's idempotency key; empty: none.

        Returns:
            The status from the node. It means queued, not delivered.

        Raises:
            RelayError: see SendCustomMsg in the contract for the reasons.
        """
        memory = weight(1, len(outbound.message))
        self.memory.take(caller.key, "requests", memory)
        try:
            await self._may_send(caller, outbound, deadline)
            caller.account.take(1, len(outbound.message) + FRAMING)
            self._limits.take(outbound)
            with caller.record.stage("node"):
                if key:
                    [outcome] = await self.send_batch(caller, [outbound], deadline, [key])
                else:
                    [outcome] = await self._node.send([outbound], deadline, caller.key)
        finally:
            self.memory.release(caller.key, "requests", memory)
        if isinstance(outcome, RelayError):
            if not key:
                self._give_back_unknown([outbound], [outcome])
            raise outcome
        return outcome

    async def check(self, caller: Caller, outbound: Outbound, deadline: float) -> str:
        """Run all checks on a message, including those of the node, and send nothing.

        Raises:
            RelayError: as `send` would.
        """
        memory = weight(1, len(outbound.message))
        self.memory.take(caller.key, "requests", memory)
        try:
            await self._may_send(caller, outbound, deadline)
            with caller.record.stage("node"):
                await self._node.check(outbound, deadline, caller.key)
        finally:
            self.memory.release(caller.key, "requests", memory)
        return CHECKED

    async def begin_stream(self, caller: Caller, deadline: float) -> None:
        """Check the credential at the start of a stream. The permission is checked for each message.

        Raises:
            RelayError: NO_CREDENTIAL, or the node cannot answer now.
        """
        await caller.prove("sendcustommsg", min(deadline, check_deadline()))

    async def admit(
        self, caller: Caller, batch: Sequence[Outbound], deadline: float
    ) -> Sequence[RelayError | None] | None:
        """Wait until the limits and the node allow a batch.

        Returns:
            For each message the error if it may not be sent, or None; None instead of the list if all may be sent.

        Raises:
            RelayError: NOT_SENT: the deadline would pass before that.
        """
        allowed, refusals = batch, None
        if not caller.permit.is_unrestricted:
            uses = [send_use(one) for one in batch]
            refusals = await caller.permit.judge(uses, min(deadline, check_deadline()))
            allowed = [one for one, refusal in zip(batch, refusals, strict=True) if refusal is None]
        size = sum([len(message) + FRAMING for _, message in allowed])
        wait = max(caller.account.reserve(len(allowed), size), self._limits.reserve(allowed))
        if wait or not self._node.has_room(caller.key):
            try:
                await _wait(wait, deadline)
                await self._room(caller, deadline)
            except BaseException:  # also if cancelled: messages that are not sent must not delay others
                caller.account.give_back(len(allowed), size)
                self._limits.give_back(allowed)
                raise
        return refusals

    async def send_batch(
        self, caller: Caller, batch: Sequence[Outbound], deadline: float, keys: Sequence[str] = ()
    ) -> Sequence[str | RelayError]:
        """Queue admitted messages with the node, in order; return each outcome, never raise.

        Args:
            caller: who sends them.
            batch: the messages.
            deadline: when the outcomes have to be known.
            keys: the idempotency key of each, empty for those that have none; or nothing.
        """

        async def send(batch: Sequence[Outbound]) -> Sequence[str | RelayError]:
            outcomes = await self._node.send(batch, deadline, caller.key, held_back=True)
            self._give_back_unknown(batch, outcomes)
            return outcomes

        if not keys:
            return await send(batch)
        return await self._once.send(caller.name, batch, keys, send)

    async def list_peers(self, caller: Caller, deadline: float) -> list[Peer]:
        """List the peers that the node knows now. Raises RelayError: NOT_PERMITTED, or the node cannot answer now."""
        await caller.require(Use("listpeers", {}), deadline)
        return await self._node.list_peers(deadline, caller.key)

    async def describe_node(self, caller: Caller, deadline: float) -> NodeInfo:
        """Ask the node to describe itself now. Raises RelayError: NOT_PERMITTED, or the node cannot answer now."""
        await caller.require(Use("getinfo", {}), deadline)
        return await self._node.describe(deadline, caller.key)

    async def last_seen(self, caller: Caller, deadline: float) -> tuple[bool, NodeInfo | None]:
        """Return whether the node answers now, and how it last described itself, if it ever did.

        Raises:
            RelayError: NOT_PERMITTED.
        """
        await caller.require(Use("getinfo", {}), deadline)
        return self._node.is_up, self._node.info

    async def connect(self, caller: Caller, address: PeerAddress, deadline: float) -> Connected:
        """Have the node connect to a peer; nothing happens if it is connected already.

        Raises:
            RelayError: PEER_NOT_CONNECTED, NOT_PERMITTED, or the node cannot answer now.
        """
        await caller.require(Use("connect", address.params), deadline)
        return await self._node.connect(address, deadline)

    async def disconnect(self, caller: Caller, peer_id: NodeId, force: bool, deadline: float) -> None:
        """Have the node disconnect from a peer; from one with a channel only by force.

        Raises:
            RelayError: PEER_UNKNOWN, PEER_NOT_CONNECTED, NOT_PERMITTED, or the node refuses or cannot answer now.
        """
        params: dict[str, str | int] = {"id": peer_id.hex()}
        if force:
            params["force"] = "true"
        await caller.require(Use("disconnect", params), deadline)
        await self._node.disconnect(peer_id, force, deadline, caller.key)

    async def find_node(self, caller: Caller, node_id: NodeId, deadline: float) -> Announcement | None:
        """Look for a node of the network in gossip; None: it is not known.

        Raises:
            RelayError: NOT_PERMITTED, or the node cannot answer now.
        """
        await caller.require(Use("listnodes", {"id": node_id.hex()}), deadline)
        return await self._node.find(node_id, deadline, caller.key)

    def watch_node(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher` with whether the node answers, now and whenever it changes."""
        self._node.watch(watcher)

    @property
    def node_info(self) -> NodeInfo | None:
        """The node as it last described itself, or None if it never did."""
        return self._node.info

    def serves(self, node_id: bytes) -> None:
        """Return if this gateway serves the node with this id; empty: any node. Raises RelayError: NODE_UNKNOWN."""
        info = self._node.info
        if node_id and (info is None or info.node_id != node_id):
            raise RelayError(
                Reason.NODE_UNKNOWN,
                "This gateway does not serve the node in node_id. Leave node_id empty, or ask GetInfo for its node.",
                field="node_id",
            )

    async def _may_send(self, caller: Caller, outbound: Outbound, deadline: float) -> None:
        if not caller.permit.is_unrestricted:  # making the use takes time: it has the message as hex
            await caller.require(send_use(outbound), deadline)

    def _give_back_unknown(self, batch: Sequence[Outbound], outcomes: Sequence[str | RelayError]) -> None:
        # Anybody can invent ids of unknown peers, which must not use up the limits.
        unknown = [
            one
            for one, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, RelayError) and outcome.reason is Reason.PEER_UNKNOWN
        ]
        if unknown:
            self._limits.give_back(unknown)

    async def _room(self, caller: Caller, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                await self._node.room(caller.key)
        except TimeoutError:
            raise not_sent() from None


async def _wait(seconds: float, deadline: float) -> None:
    if asyncio.get_running_loop().time() + seconds > deadline:
        raise not_sent()
    await asyncio.sleep(seconds)
