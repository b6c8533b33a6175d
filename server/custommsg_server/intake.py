"""What the gateway takes of all that passes the node's hook."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from custommsg_server.inbox.inbox import Inbox
from custommsg_server.inbox.port import Arrival


class Intake:
    """Takes messages of some types into the inbox. Implements `plugin.channel.Intake`.

    Args:
        inbox: keeps them.
        types: the types that are wanted.
    """

    def __init__(self, inbox: Inbox, types: frozenset[int]) -> None:
        self._inbox = inbox
        self._types = types

    def takes(self, message_type: int) -> bool:
        """Whether messages of this type are wanted."""
        return message_type in self._types

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Keep arrivals, in order; the future ends when they are safe (True) or lost (False)."""
        return self._inbox.append(arrivals)

    @property
    def is_full(self) -> bool:
        """Whether to bring no more for now."""
        return self._inbox.is_full

    async def has_room(self) -> None:
        """Wait until it is not full."""
        await self._inbox.has_room()
