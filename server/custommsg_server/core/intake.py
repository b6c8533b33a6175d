"""What the gateway takes of all that passes the node's hook."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from custommsg_server.inbox.port import Arrival, Kind
from custommsg_server.inbox.sqlite.inbox import Inbox


class Watcher(Protocol):
    """Is told what becomes of what was taken, once for each batch; it must be quick, and must not raise."""

    def handed_over(self, seconds: float) -> None:
        """Take note of how long lightningd waited for its answer."""


class Intake:
    """Takes messages of some types into the inbox. Implements `plugin.channel.Intake`.

    Args:
        inbox: keeps them.
        types: the types that are wanted.
        watcher: is told what becomes of them.
    """

    def __init__(self, inbox: Inbox, types: frozenset[int], watcher: Watcher | None = None) -> None:
        self._inbox = inbox
        self._types = types
        self._watcher = watcher
        self.ignored = 0
        """Messages that were not wanted."""
        self.stored = 0
        """Messages that are in the inbox, or were."""

    def takes(self, message_type: int) -> bool:
        """Whether messages of this type are wanted."""
        if message_type in self._types:
            return True
        self.ignored += 1
        return False

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Keep arrivals, in order; the future ends when they are safe (True) or lost (False)."""
        kept = self._inbox.append(arrivals)
        messages = sum([one.kind is Kind.MESSAGE for one in arrivals])
        if messages:
            kept.add_done_callback(partial(self._kept, messages, time.perf_counter()))
        return kept

    def _kept(self, messages: int, since: float, kept: asyncio.Future[bool]) -> None:
        if not kept.cancelled() and kept.result():
            self.stored += messages
        if self._watcher is not None:
            self._watcher.handed_over(time.perf_counter() - since)

    @property
    def is_full(self) -> bool:
        """Whether to bring no more for now."""
        return self._inbox.is_full

    async def has_room(self) -> None:
        """Wait until it is not full."""
        await self._inbox.has_room()
