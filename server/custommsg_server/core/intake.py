"""Stores messages from lightningd in the inbox and counts them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Final, Protocol

import structlog

from custommsg_server.core.limits import FRAMING, Rate, TokenBuckets
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.events import MESSAGE, Arrival, Kind
from custommsg_server.inbox.port import Inbox, InboxError
from custommsg_server.node.port import Peer

log = structlog.get_logger()

MAX_WAITING: Final = 16 << 20
"""Bytes of arrivals that may wait to be stored; above that, the intake is full."""
MAX_FAVORED: Final = 10_000
"""The maximum number of peers with channels that the inbox stores more events of."""
_OVERHEAD: Final = 400
"""The approximate memory of an arrival in bytes, without its message."""
_TELL_AFTER: Final = 1.0
"""Seconds from a refused message to the interruption with the number of refused messages."""
_ANSWER_TIME: Final = 30.0
"""Seconds that the node may take to list its peers."""


_NO_LIMIT: Final = Rate()


class Watcher(Protocol):
    """Observes the intake; it must be fast, and must not raise."""

    def handed_over(self, seconds: float) -> None:
        """Record how long lightningd waited until a batch of messages was stored or lost."""


class Intake:
    """Stores messages of some types in the inbox. Implements `node.lightningd.channel.Intake`.

    Args:
        inbox: the inbox.
        types: the types to store.
        node_id: returns the id of our node, 33 bytes, or empty bytes while it is not known.
        watcher: observes it.
        max_waiting: bytes of arrivals that may wait to be stored; above that, it is full.
        rate: the budget of each peer; messages above it are refused.
        tell_after: seconds from a refused message to the interruption with the number of refused messages.
    """

    def __init__(
        self,
        inbox: Inbox,
        types: Container[int],
        node_id: Callable[[], bytes],
        watcher: Watcher | None = None,
        max_waiting: int = MAX_WAITING,
        rate: Rate = _NO_LIMIT,
        tell_after: float = _TELL_AFTER,
    ) -> None:
        self._inbox = inbox
        self._types = types
        self._node_id = node_id
        self._watcher = watcher
        self._max_waiting = max_waiting
        self._budgets: TokenBuckets[bytes] = TokenBuckets(rate)
        self._tell_after = tell_after
        self._untold: Counter[bytes] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self.waiting = 0
        """Bytes of arrivals that wait to be stored."""
        self.ignored = 0
        """Messages of types that are not stored."""
        self.stored = 0
        """Messages that were stored."""
        self.lost = 0
        """Messages that could not be stored."""
        self.refused = 0
        """Messages that exceeded the budget of their peer."""
        self._peer_watcher: Callable[[Sequence[Arrival]], None] | None = None
        inbox.watch(lambda _: self._look_for_room())

    def takes(self, message_type: int) -> bool:
        """Return whether messages of this type are wanted."""
        if message_type in self._types:
            return True
        self.ignored += 1
        return False

    def watch_peers(self, watcher: Callable[[Sequence[Arrival]], None]) -> None:
        """Call `watcher` with arrivals among which peers have connected or disconnected; it must be quick."""
        self._peer_watcher = watcher

    def set(self, rate: Rate) -> None:
        """Set other budgets."""
        self._budgets.set(rate)

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Store arrivals in order; the future returns whether they were stored. It never raises."""
        kept = asyncio.get_running_loop().create_future()
        if not self._budgets.is_off:
            arrivals = self._within_budget(arrivals)
            if not arrivals:
                kept.set_result(False)
                return kept
        ours = self._node_id()
        stamped = [
            Arrival(one.kind, one.time_ns, one.peer_id, one.message, one.lost, one.node_id or ours, one.id)
            for one in arrivals
        ]
        sizes = [len(one.message) for one in arrivals if one.kind is MESSAGE]
        messages, size = len(sizes), sum(sizes) + _OVERHEAD * len(arrivals)
        if messages < len(arrivals) and self._peer_watcher is not None:
            self._peer_watcher(arrivals)
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
        """Whether so much waits to be stored that the channel should stop reading.

        Not while the inbox fails: then the inbox itself limits what waits, and drops the rest.
        """
        return self.waiting >= self._max_waiting and self._inbox.error is None

    async def has_room(self) -> None:
        """Wait until it is not full."""
        while self.is_full:
            await self._room.wait()

    def close(self) -> None:
        """Store the interruptions of messages that were refused lately."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def _within_budget(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Remove messages of peers that have exceeded their budgets, and count the others."""
        sums: dict[bytes, list[int]] = {}
        for one in arrivals:
            if one.kind is MESSAGE:
                sums.setdefault(one.peer_id, []).append(len(one.message) + FRAMING)
        over = {peer_id for peer_id in sums if self._budgets.wait(peer_id)}
        for peer_id, sizes in sums.items():
            if peer_id in over:
                self._untold[peer_id] += len(sizes)
                self.refused += len(sizes)
            else:
                self._budgets.charge(peer_id, len(sizes), sum(sizes))
        if not over:
            return arrivals
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(self._tell_after, self._tell)
        return [one for one in arrivals if one.kind is not MESSAGE or one.peer_id not in over]

    def _tell(self) -> None:
        now, self._telling = time.time_ns(), None
        refused, self._untold = self._untold, Counter()
        self.append(
            [Arrival(Kind.INTERRUPTION, now, peer_id, lost=lost) for peer_id, lost in refused.items()]
        )

    def _look_for_room(self) -> None:
        if self.is_full:
            self._room.clear()
        else:
            self._room.set()


class PeerLister(Protocol):
    """Lists the peers; a part of `node.port.Node`."""

    async def list_peers(self, deadline: float, caller: str) -> list[Peer]:
        """List the peers. Raises RelayError."""


async def keep_more_of_channels(node: PeerLister, inbox: Inbox, interval: float) -> None:
    """Tell the inbox which peers have channels, until cancelled.

    Args:
        node: lists the peers.
        inbox: stores more events of peers with channels.
        interval: seconds between two requests; a tenth of it while the node does not answer.
    """
    while True:
        try:
            peers = await node.list_peers(asyncio.get_running_loop().time() + _ANSWER_TIME, "")
        except RelayError:  # the last list stays valid
            await asyncio.sleep(interval / 10)
        else:
            favored = [peer.peer_id for peer in peers if peer.num_channels]
            inbox.keep_more_of(favored[:MAX_FAVORED])
            await asyncio.sleep(interval)
