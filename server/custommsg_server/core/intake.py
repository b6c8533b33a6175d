"""Takes what lightningd hands over into the inbox, and keeps account of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Final, Protocol

import structlog

from custommsg_server.domain.events import MESSAGE, Arrival
from custommsg_server.inbox.port import Inbox, InboxError

log = structlog.get_logger()

MAX_WAITING: Final = 16 << 20
"""Bytes of memory that may wait to be stored before the intake is full."""
_OVERHEAD: Final = 400
"""Bytes of memory that an arrival takes beside its message, about."""


class Watcher(Protocol):
    """Is told what becomes of what was taken, once for each batch; it must be quick, and must not raise."""

    def handed_over(self, seconds: float) -> None:
        """Take note of how long lightningd waited for its answer."""


class Intake:
    """Takes messages of some types into the inbox. Implements `node.lightningd.channel.Intake`.

    Args:
        inbox: keeps them.
        types: the types that are wanted.
        node_id: returns the id of our node, 33 bytes, or nothing while it is not known.
        watcher: is told what becomes of them.
        max_waiting: bytes of memory that may wait to be stored before it is full.
    """

    def __init__(
        self,
        inbox: Inbox,
        types: Container[int],
        node_id: Callable[[], bytes],
        watcher: Watcher | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._inbox = inbox
        self._types = types
        self._node_id = node_id
        self._watcher = watcher
        self._max_waiting = max_waiting
        self._room = asyncio.Event()
        self.waiting = 0
        """Bytes of memory that wait to be stored."""
        self.ignored = 0
        """Messages that were not wanted."""
        self.stored = 0
        """Messages that were stored."""
        self.lost = 0
        """Messages that could not be stored."""
        inbox.watch(lambda _: self._look_for_room())

    def takes(self, message_type: int) -> bool:
        """Return whether messages of this type are wanted."""
        if message_type in self._types:
            return True
        self.ignored += 1
        return False

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Keep arrivals, in order; the future ends when they are safe (True) or lost (False). It never raises."""
        ours = self._node_id()
        stamped = [
            Arrival(one.kind, one.time_ns, one.peer_id, one.message, one.lost, one.node_id or ours, one.id)
            for one in arrivals
        ]
        sizes = [len(one.message) for one in arrivals if one.kind is MESSAGE]
        messages, size = len(sizes), sum(sizes) + _OVERHEAD * len(arrivals)
        kept = asyncio.get_running_loop().create_future()
        stored = asyncio.ensure_future(self._inbox.append(stamped))
        stored.add_done_callback(partial(self._ended, kept, messages, size, time.perf_counter()))
        self.waiting += size
        self._look_for_room()
        return kept

    def _ended(
        self, kept: asyncio.Future[bool], messages: int, size: int, since: float, stored: asyncio.Future[Any]
    ) -> None:
        self.waiting -= size
        self._look_for_room()
        error = asyncio.CancelledError() if stored.cancelled() else stored.exception()
        is_stored = error is None
        if error is not None and not isinstance(error, InboxError):
            log.error("unexpected error while storing", exc_info=error)
        if is_stored:
            self.stored += messages
        else:
            self.lost += messages
        if messages and self._watcher is not None:
            self._watcher.handed_over(time.perf_counter() - since)
        if not kept.done():
            kept.set_result(is_stored)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be stored that whoever appends should wait, too.

        Not while the inbox fails: it bounds by itself what it keeps until it works again, and loses the rest.
        """
        return self.waiting >= self._max_waiting and self._inbox.error is None

    async def has_room(self) -> None:
        """Wait until it is not full."""
        while self.is_full:
            await self._room.wait()

    def _look_for_room(self) -> None:
        if self.is_full:
            self._room.clear()
        else:
            self._room.set()
