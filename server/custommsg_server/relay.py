"""The core: what happens to a message on its way to a peer. It knows ports, not technologies."""

from __future__ import annotations

from custommsg_server.errors import RelayError
from custommsg_server.node.port import Node, NodeInfo, Outbound, Peer

CHECKED = "Checked, not sent"
"""The status of a message that was to be validated only."""


class Relay:
    """Sends messages to peers through a node.

    Args:
        node: the node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

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
        [outcome] = await self._node.send([outbound], deadline)
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    async def check(self, outbound: Outbound, deadline: float) -> str:
        """Run every check on a message, the node's own included, and send nothing.

        Raises:
            RelayError: as `send` would.
        """
        await self._node.check(outbound, deadline)
        return CHECKED

    async def list_peers(self, deadline: float) -> list[Peer]:
        """List the peers that the node knows now.

        Raises:
            RelayError: the node could not be asked.
        """
        return await self._node.list_peers(deadline)

    @property
    def node_is_up(self) -> bool:
        """Whether the node answers now."""
        return self._node.is_up

    @property
    def node_info(self) -> NodeInfo | None:
        """The node as it last described itself, or None if it never did."""
        return self._node.info
