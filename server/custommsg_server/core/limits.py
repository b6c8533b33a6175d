"""How much may be sent: one token bucket for each peer and for each caller."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from custommsg_server.domain.errors import RelayError, overloaded
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.port import Outbound

FRAMING: Final = 34
"""Bytes that the transport adds to each message: 18 for the length, 16 for the tag (BOLT 8)."""
MAX_KEYS: Final = 10_000
"""Peers or callers that are remembered; the one with the least debt is forgotten first, so one that is idle."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Rate:
    """How much may be sent; 0 is no limit."""

    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    burst: float = 1.0
    """Seconds' worth that may be sent at once after a pause."""


class TokenBuckets(Generic[K]):
    """A token bucket for messages and one for bytes, for each key. A bucket may go below zero.

    A bucket is kept as the time at which it is full again (the generic cell rate algorithm), so a key that is
    forgotten when it is idle loses nothing.

    Args:
        rate: what each key may send.
        clock: seconds, monotonic.
        max_keys: keys that are remembered.
    """

    def __init__(
        self, rate: Rate, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: dict[K, tuple[float, float]] = {}
        self._by_debt: list[tuple[float, int, K]] = []
        """A heap with each key once, and when its bucket was to be full when it was last looked at."""
        self._number = itertools.count()
        self.set(rate)

    def set(self, rate: Rate) -> None:
        """Apply another rate from now on."""
        self._burst = rate.burst
        self._per_message = 1 / rate.messages_per_s if rate.messages_per_s else 0.0
        self._per_byte = 1 / rate.bytes_per_s if rate.bytes_per_s else 0.0

    @property
    def is_off(self) -> bool:
        """Whether nothing is limited."""
        return not self._per_message and not self._per_byte

    def wait(self, key: K) -> float:
        """Return the seconds until the key may send again; 0 if it may now."""
        now = self._clock()
        by_messages, by_bytes = self._full_at.get(key, (now, now))
        # Rounded to microseconds: what is less is a rounding error of the clock.
        return max(0.0, round(max(by_messages, by_bytes) - now - self._burst, 6))

    def charge(self, key: K, messages: int, size: int) -> None:
        """Account for messages (bytes in all), whether they are allowed now or not."""
        now = self._clock()
        by_messages, by_bytes = self._full_at.get(key, (now, now))
        full_at = (
            max(by_messages, now) + messages * self._per_message,
            max(by_bytes, now) + size * self._per_byte,
        )
        if key not in self._full_at:
            heapq.heappush(self._by_debt, (max(full_at), next(self._number), key))
        self._full_at[key] = full_at
        if len(self._full_at) > self._max_keys:
            self._forget_one()

    def charge_each(self, charges: Sequence[tuple[K, int]]) -> float:
        """Account for messages, a key and its bytes each; return the seconds to wait until the last one is allowed."""
        now = latest = self._clock()
        full_at, per_message, per_byte = self._full_at, self._per_message, self._per_byte
        for key, size in charges:  # written out: each message of each stream passes here
            by_messages, by_bytes = full_at.get(key, (now, now))
            if by_messages < now:
                by_messages = now
            if by_bytes < now:
                by_bytes = now
            if latest < by_messages:
                latest = by_messages
            if latest < by_bytes:
                latest = by_bytes
            if key not in full_at:
                heapq.heappush(self._by_debt, (now, next(self._number), key))
            full_at[key] = by_messages + per_message, by_bytes + size * per_byte
        while len(full_at) > self._max_keys:
            self._forget_one()
        return max(0.0, round(latest - now - self._burst, 6))

    def give_back(self, key: K, messages: int, size: int) -> None:
        """Undo a charge: the messages are not sent."""
        if key in self._full_at:
            by_messages, by_bytes = self._full_at[key]
            self._full_at[key] = by_messages - messages * self._per_message, by_bytes - size * self._per_byte

    def _forget_one(self) -> None:
        # Each turn of this loop makes up for a charge since the key was looked at: together they cost little.
        while True:
            seen, number, key = self._by_debt[0]
            full_at = max(self._full_at[key])
            if full_at <= seen:
                heapq.heappop(self._by_debt)
                del self._full_at[key]
                return
            heapq.heapreplace(self._by_debt, (full_at, number, key))


class PeerLimits:
    """How much each peer may be sent: the protection of the node's memory.

    A Core Lightning peer reads at most 1,000,000 bytes a second, framing included. What is sent faster stays in the
    memory of our node, which has no bound of its own.

    Args:
        rate: what one peer may be sent.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: TokenBuckets[NodeId] = TokenBuckets(rate, clock)

    def set(self, rate: Rate) -> None:
        """Apply another rate from now on."""
        self._buckets.set(rate)

    def take(self, outbound: Outbound) -> None:
        """Account for a message that is sent now.

        Raises:
            RelayError: OVERLOADED, with the time to wait; nothing is accounted for.
        """
        if self._buckets.is_off:
            return
        if wait := self._buckets.wait(outbound.peer_id):
            raise _peer_is_full(wait)
        self._buckets.charge(outbound.peer_id, 1, len(outbound.message) + FRAMING)

    def reserve(self, batch: Sequence[Outbound]) -> float:
        """Account for a batch in any case; return the seconds to wait until its last message is allowed."""
        if self._buckets.is_off:
            return 0.0
        return self._buckets.charge_each([(peer_id, len(message) + FRAMING) for peer_id, message in batch])

    def give_back(self, batch: Sequence[Outbound]) -> None:
        """Undo a reservation: the batch is not sent."""
        for peer_id, message in batch:
            self._buckets.give_back(peer_id, 1, len(message) + FRAMING)


def _peer_is_full(wait: float) -> RelayError:
    return overloaded(
        "peer_rate",
        "This peer is already sent as much as it can read; more would only fill the node's memory."
        f" Try again in {wait:.3f} s, or use SendCustomMsgStream, which waits by itself.",
        wait,
    )
