"""Rate limits: a token bucket for each peer and for each caller."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from custommsg_server.domain.errors import overloaded
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.port import Outbound

FRAMING: Final = 34
"""Bytes that the transport adds to each message: 18 for the length, 16 for the tag (BOLT 8)."""
MAX_KEYS: Final = 10_000
"""The number of peers or callers that are remembered; the one with the least debt is forgotten first."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate; 0 is no limit."""

    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    burst: float = 1.0
    """The burst after a pause, in seconds of the rate."""


class TokenBuckets(Generic[K]):
    """A token bucket for messages and one for bytes, for each key. A bucket may go below zero.

    A bucket is stored as the time at which it is full again (the generic cell rate algorithm), so an idle key can be
    forgotten without a loss.

    Args:
        rate: the rate of each key.
        clock: seconds, monotonic.
        max_keys: the number of keys that are remembered.
    """

    def __init__(
        self, rate: Rate, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: dict[K, tuple[float, float]] = {}
        self._by_debt: list[tuple[float, int, K]] = []
        """A heap of all keys by the time at which their bucket is full, as it was when the key was last checked."""
        self._number = itertools.count()
        self.set(rate)

    def set(self, rate: Rate) -> None:
        """Apply another rate from now on."""
        self._burst = rate.burst
        self._per_message = 1 / rate.messages_per_s if rate.messages_per_s else 0.0
        self._per_byte = 1 / rate.bytes_per_s if rate.bytes_per_s else 0.0

    @property
    def is_off(self) -> bool:
        """Whether there is no limit."""
        return not self._per_message and not self._per_byte

    def wait(self, key: K) -> float:
        """Return the seconds until the key may send again; 0 if it may now."""
        known = self._full_at.get(key)
        return 0.0 if known is None else self._until(max(known), self._clock())

    def charge(self, key: K, messages: int, size: int) -> None:
        """Count messages and their total size in bytes, whether they are allowed now or not."""
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

    def reserve(self, messages: Iterable[tuple[K, bytes]]) -> float:
        """Count messages, each with its key, in any case; return the seconds to wait until all are allowed."""
        now = latest = self._clock()
        full_at, per_message, per_byte = self._full_at, self._per_message, self._per_byte
        for key, message in messages:  # not a call of `charge`: this runs for each message of each stream
            known = full_at.get(key)
            if known is None:
                self.charge(key, 1, len(message) + FRAMING)
                continue
            by_messages, by_bytes = known
            if by_messages < now:
                by_messages = now
            if by_bytes < now:
                by_bytes = now
            if latest < by_messages or latest < by_bytes:
                latest = max(by_messages, by_bytes)
            full_at[key] = by_messages + per_message, by_bytes + (len(message) + FRAMING) * per_byte
        return self._until(latest, now)

    def give_back(self, key: K, messages: int, size: int) -> None:
        """Undo a charge: the messages are not sent."""
        if key in self._full_at:
            by_messages, by_bytes = self._full_at[key]
            self._full_at[key] = by_messages - messages * self._per_message, by_bytes - size * self._per_byte

    def _until(self, full_at: float, now: float) -> float:
        left = full_at - now - self._burst
        # Rounded to microseconds: less is a rounding error of the clock.
        return round(left, 6) if left > 0 else 0.0

    def _forget_one(self) -> None:
        # Each iteration corrects a key that was charged after its last check: there are no more of them than charges.
        while True:
            seen, number, key = self._by_debt[0]
            full_at = max(self._full_at[key])
            if full_at <= seen:
                heapq.heappop(self._by_debt)
                del self._full_at[key]
                return
            heapq.heapreplace(self._by_debt, (full_at, number, key))


class PeerLimits:
    """The limits of each peer, which protect the node's memory.

    A Core Lightning peer reads at most 1,000,000 bytes a second, framing included. The node keeps the rest in its
    memory, without a limit of its own.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: TokenBuckets[NodeId] = TokenBuckets(rate, clock)

    def set(self, rate: Rate) -> None:
        """Apply another rate from now on."""
        self._buckets.set(rate)

    def take(self, outbound: Outbound) -> None:
        """Count a message that is sent now.

        Raises:
            RelayError: OVERLOADED, with the time to wait; nothing is counted.
        """
        if self._buckets.is_off:
            return
        if wait := self._buckets.wait(outbound.peer_id):
            raise overloaded(
                "peer_rate",
                "This peer gets messages faster than it can read them; more would only fill the node's memory."
                f" Try again in {wait:.3f} s, or use SendCustomMsgStream, which waits by itself.",
                wait,
            )
        self._buckets.charge(outbound.peer_id, 1, len(outbound.message) + FRAMING)

    def reserve(self, batch: Sequence[Outbound]) -> float:
        """Count a batch in any case; return the seconds to wait until its last message is allowed."""
        return 0.0 if self._buckets.is_off else self._buckets.reserve(batch)

    def give_back(self, batch: Sequence[Outbound]) -> None:
        """Undo a reservation: the batch is not sent."""
        for peer_id, message in batch:
            self._buckets.give_back(peer_id, 1, len(message) + FRAMING)
