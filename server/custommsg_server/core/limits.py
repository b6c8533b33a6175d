"""How much each peer may be sent: the protection of the node's memory.

A Core Lightning peer reads at most 1,000,000 bytes a second, framing included. What is sent faster only piles up
in the memory of our node, which has no bound of its own (BOLT 8 framing: 18 bytes for the length, 16 for the tag).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.port import Outbound

FRAMING: Final = 34
"""Bytes that the transport adds to each message."""
MAX_PEERS: Final = 10_000
"""Peers that are remembered; the one not written to for the longest time is forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may be sent; 0 is no limit."""

    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    burst: float = 1.0
    """Seconds' worth that may be sent at once after a pause."""


class PeerLimits:
    """Keeps account of what each peer was sent, as token buckets that may go below zero.

    Args:
        limits: what one peer may be sent.
        clock: seconds, monotonic.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self.set(limits)

    def set(self, limits: Limits) -> None:
        """Hold peers to other limits from now on."""
        self._limits = limits
        self._per_message = 1 / limits.messages_per_s if limits.messages_per_s else 0.0
        self._per_byte = 1 / limits.bytes_per_s if limits.bytes_per_s else 0.0

    @property
    def are_off(self) -> bool:
        """Whether nothing is limited."""
        return not self._per_message and not self._per_byte

    def take_now(self, node_id: NodeId, size: int) -> None:
        """Account for one message that is sent now, if that is allowed.

        Raises:
            RelayError: OVERLOADED, with the time when it will be.
        """
        if self.are_off:
            return
        now = self._clock()
        wait = self._wait(self._account(node_id, now), now)
        if wait > 0:
            raise RelayError(
                Reason.OVERLOADED,
                "This peer is sent as much as it can read already; more would only fill the node's memory."
                f" Nothing was sent; try again in {wait:.3f} s, or use SendCustomMsgStream, which waits by itself.",
                metadata={"limit": "peer_rate"},
                retry_after=wait,
            )
        self._charge(node_id, now, size + FRAMING)

    def reserve(self, batch: Sequence[Outbound]) -> float:
        """Account for a batch, whatever it is; return the seconds to wait until its last message is allowed."""
        if self.are_off:
            return 0.0
        now = latest = self._clock()
        free_at, per_message, per_byte = self._free_at, self._per_message, self._per_byte
        for node_id, message in batch:  # written out: each message of each stream passes here
            by_messages, by_bytes = free_at.get(node_id, (now, now))
            if by_messages < now:
                by_messages = now
            if by_bytes < now:
                by_bytes = now
            latest = max(latest, by_messages, by_bytes)
            free_at[node_id] = by_messages + per_message, by_bytes + (len(message) + FRAMING) * per_byte
            free_at.move_to_end(node_id)
        while len(free_at) > MAX_PEERS:
            free_at.popitem(last=False)
        return max(0.0, round(latest - now - self._limits.burst, 6))

    def give_back(self, batch: Sequence[Outbound]) -> None:
        """Undo a reservation: the batch is not sent after all."""
        for node_id, message in batch:
            if node_id in self._free_at:
                by_messages, by_bytes = self._free_at[node_id]
                size = len(message) + FRAMING
                self._free_at[node_id] = by_messages - self._per_message, by_bytes - size * self._per_byte

    def _account(self, node_id: bytes, now: float) -> tuple[float, float]:
        """Return when the peer's two accounts, for messages and for bytes, are empty again."""
        by_messages, by_bytes = self._free_at.get(node_id, (0.0, 0.0))
        return max(by_messages, now), max(by_bytes, now)

    def _wait(self, account: tuple[float, float], now: float) -> float:
        return round(max(account) - now - self._limits.burst, 6)  # microseconds: less is rounding

    def _charge(self, node_id: bytes, now: float, size: int) -> None:
        by_messages, by_bytes = self._account(node_id, now)
        self._free_at[node_id] = by_messages + self._per_message, by_bytes + size * self._per_byte
        self._free_at.move_to_end(node_id)
        if len(self._free_at) > MAX_PEERS:
            self._free_at.popitem(last=False)
