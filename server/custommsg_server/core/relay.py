"""The core: what happens to a message on its way to a peer. It knows ports, not technologies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from custommsg_server.core.limits import PeerLimits
from custommsg_server.domain.errors import RelayError, not_sent
from custommsg_server.domain.stages import stage
from custommsg_server.node.port import Node, NodeInfo, Outbound, Peer, PeerAddress

CHECKED = "Checked, not sent"
"""The status of a message that was to be validated only."""


async def wait_until(time: float, deadline: float) -> None:
    """Wait until a time of the loop's clock.

    Raises:
        RelayError: NOT_SENT at once, because the deadline would pass first.
    """
    if time > deadline:
        raise not_sent()
    await asyncio.sleep(time - asyncio.get_running_loop().time())


class Relay:
    """Sends messages to peers through a node.

    Args:
        node: the node.
        limits: what each peer may be sent.
    """

    def __init__(self, node: Node, limits: PeerLimits) -> None:
        self._node = node
        self._limits = limits

    async def send(self, outbound: Outbound, deadline: float) -> str:
        """Queue a message with the node.

        Args:
            outbound: the message and its peer.
            deadline: in seconds of the running loop's clock.

        Returns:
            What the node said; it means queued, not delivered.

        Raises:
            RelayError: any reason of the error table that sending has.
        """
        self._limits.take_now(outbound.node_id, len(outbound.message))
        with stage("node"):
            [outcome] = await self._node.send([outbound], deadline)
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    async def admit(self, batch: Sequence[Outbound], deadline: float) -> Sequence[RelayError | None] | None:
        """Wait until the limits and the node have room for a batch: for a sender that can be held back.

        Returns:
            Why each message may not be sent, None where it may; or None if all may.

        Raises:
            RelayError: NOT_SENT, because the deadline would pass first.
        """
        wait = self._limits.reserve(batch)
        if not wait and self._node.has_room:
            return None
        try:
            await wait_until(asyncio.get_running_loop().time() + wait, deadline)
            await self._room(deadline)
        except BaseException:  # cancelled, too: what is not sent must not weigh on those who come after
            self._limits.give_back(batch)
            raise
        return None

    async def _room(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                await self._node.room()
        except TimeoutError:
            raise not_sent() from None

    async def begin_stream(self, deadline: float) -> None:
        """Let a stream of messages begin.

        Raises:
            RelayError: whoever sends it has no right to.
        """

    async def send_batch(self, batch: Sequence[Outbound], deadline: float) -> list[str | RelayError]:
        """Queue messages with the node, in order, once they are admitted; answer each, never raise."""
        return await self._node.send(batch, deadline, held_back=True)

    async def check(self, outbound: Outbound, deadline: float) -> str:
        """Run every check on a message, the node's own included, and send nothing.

        Raises:
            RelayError: as `send` would.
        """
        with stage("node"):
            await self._node.check(outbound, deadline)
        return CHECKED

    async def list_peers(self, deadline: float) -> list[Peer]:
        """List the peers that the node knows now.

        Raises:
            RelayError: the node could not be asked.
        """
        return await self._node.list_peers(deadline)

    async def describe_node(self, deadline: float) -> NodeInfo:
        """Ask the node to describe itself now.

        Raises:
            RelayError: the node could not be asked.
        """
        return await self._node.describe(deadline)

    async def last_seen(self, deadline: float) -> tuple[bool, NodeInfo | None]:
        """Return whether the node answers now, and how it last described itself, if it ever did."""
        return self._node.is_up, self._node.info

    async def connect(self, address: PeerAddress, deadline: float) -> None:
        """Have the node connect to a peer; a peer that is connected already stays so.

        Raises:
            RelayError: PEER_NOT_CONNECTED, or the node could not be asked.
        """
        await self._node.connect(address, deadline)

    @property
    def node_info(self) -> NodeInfo | None:
        """The node as it last described itself, or None if it never did."""
        return self._node.info
