"""Stores messages from lightningd in the inbox and counts them.

A commit costs about as much for many messages as for one. So arrivals during a commit are collected, and the next
commit stores them together. lightningd calls the hook for the next message of a peer only after the answer for the last
one. So after answers for several messages, the next commit waits a moment for as many new ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog

from custommsg_server.core.limits import FRAMING, Rate, TokenBuckets
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.events import ARRIVAL_OVERHEAD, MESSAGE, Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.port import Inbox, InboxError
from custommsg_server.node.port import Peer

log = structlog.get_logger()

MAX_WAITING: Final = 16 << 20
"""Bytes of arrivals that may wait to be stored; above that, the intake is full."""
WAIT: Final = 0.001
"""Seconds after an answer during which the next commit waits for as many arrivals as were in progress before."""
MAX_COLLECTED: Final = 1 << 20
"""Bytes of arrivals above which they are passed to the inbox, even during a commit."""
MAX_FAVORED: Final = 10_000
"""The maximum number of peers with channels that the inbox stores more events of."""
_TELL_AFTER: Final = 1.0
"""Seconds from a refused message to the interruption with the number of refused messages."""
_ANSWER_TIME: Final = 30.0
"""Seconds that the node may take to list its peers."""


_NO_LIMIT: Final = Rate()


class Watcher(Protocol):
    """Observes the intake; it must be fast, and must not raise."""

    def handed_over(self, seconds: float) -> None:
        """Record how long lightningd waited until a batch of messages was stored or lost."""


Answer = Callable[[bool], None]
"""Called with whether arrivals were stored."""


@dataclass(slots=True)
class _Collected:
    """Arrivals to store in one commit."""

    since: float
    """The time of the first."""
    arrivals: list[Arrival] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    messages: int = 0
    size: int = 0
    """Their approximate memory in bytes."""


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
        clock: seconds, monotonic, for the budgets.
    """

    def __init__(
        self,
        inbox: Inbox,
        types: TypeSet,
        node_id: Callable[[], bytes],
        watcher: Watcher | None = None,
        max_waiting: int = MAX_WAITING,
        rate: Rate = _NO_LIMIT,
        tell_after: float = _TELL_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._types = types
        self._node_id = node_id
        self._watcher = watcher
        self._max_waiting = max_waiting
        self._budgets: TokenBuckets[bytes] = TokenBuckets(rate, clock)
        self._tell_after = tell_after
        self._untold: Counter[bytes] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self._collected: _Collected | None = None
        self._storing = 0
        self._awaited = 0
        """The number of arrivals for which the next commit waits ..."""
        self._timer: asyncio.TimerHandle | None = None
        """... until this timer fires."""
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
        inbox.watch(lambda _: self._go_on())

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

    def append(self, arrivals: Sequence[Arrival], answer: Answer | None = None) -> None:
        """Store arrivals in order. It never raises.

        Args:
            arrivals: the arrivals.
            answer: called when they are stored or lost, maybe before this returns.
        """
        if not self._budgets.is_off:
            arrivals = self._within_budget(arrivals)
            if not arrivals:
                if answer is not None:
                    answer(False)
                return
        collected = self._collected
        if collected is None:
            collected = self._collected = _Collected(time.perf_counter())
        ours = self._node_id()
        collected.arrivals += [
            Arrival(one.kind, one.time_ns, one.peer_id, one.message, one.lost, one.node_id or ours, one.id)
            for one in arrivals
        ]
        if answer is not None:
            collected.answers.append(answer)
        sizes = [len(one.message) for one in arrivals if one.kind is MESSAGE]
        if len(sizes) < len(arrivals) and self._peer_watcher is not None:
            self._peer_watcher(arrivals)
        size = sum(sizes) + ARRIVAL_OVERHEAD * len(arrivals)
        collected.messages += len(sizes)
        collected.size += size
        self.waiting += size
        self._go_on()

    def _go_on(self) -> None:
        """Pass collected arrivals to the inbox if it is time, and wake the channel if there is space."""
        collected = self._collected
        if collected is not None and (
            (not self._storing and (self._timer is None or len(collected.arrivals) >= self._awaited))
            or collected.size >= MAX_COLLECTED
            # While the inbox fails it limits what waits, and counts what is lost.
            or self._inbox.error is not None
        ):
            self._store(collected)
        if self.is_full:
            self._room.clear()
        else:
            self._room.set()

    def _store(self, collected: _Collected) -> None:
        self._collected = None
        self._storing += 1
        stored = asyncio.ensure_future(self._inbox.append(collected.arrivals))
        stored.add_done_callback(partial(self._ended, collected))

    def _ended(self, collected: _Collected, stored: asyncio.Future[Any]) -> None:
        self._storing -= 1
        self.waiting -= collected.size
        error = asyncio.CancelledError() if stored.cancelled() else stored.exception()
        is_stored = error is None
        if error is not None and not isinstance(error, InboxError):
            log.error("unexpected error while storing", exc_info=error)
        if is_stored:
            self.stored += collected.messages
        else:
            self.lost += collected.messages
        if collected.messages and self._watcher is not None:
            self._watcher.handed_over(time.perf_counter() - collected.since)
        for answer in collected.answers:
            try:
                answer(is_stored)
            except Exception:  # the other answers must be sent
                log.exception("an answer was not sent because of a bug; please report it")
        self._awaited = len(collected.arrivals) + (len(self._collected.arrivals) if self._collected else 0)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(WAIT, self._end_wait)
        self._go_on()

    def _end_wait(self) -> None:
        self._timer = None
        self._go_on()

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
        """Pass all collected arrivals to the inbox, and the interruptions of messages that were refused lately."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()
        if self._collected is not None:
            self._store(self._collected)

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
