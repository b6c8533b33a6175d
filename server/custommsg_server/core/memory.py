"""One budget of bytes for what callers make the process hold, shared fairly.

A caller may hold as much as is left for all others (the dynamic threshold of Choudhury and Hahne, 1998): one alone gets
half of the budget, each of n that want more gets a part of n + 1, and there is always room for a newcomer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Literal

from custommsg_server.domain.errors import RelayError, overloaded

Kind = Literal["requests", "streams", "subscriptions"]
"""What holds it: calls that wait for the node, messages on send streams, events on their way to subscribers."""

PER_MESSAGE: Final = 1000
"""Bytes that a message takes beside its own: objects, its request to the node, its result."""
COPIES: Final = 3
"""How often its bytes are in memory: as they came, and as the hex digits of the request to the node."""
_LOOK_AHEAD: Final = 8
"""Of those who wait, how many are looked at when something was released."""


def weight(messages: int, size: int) -> int:
    """Return the memory that messages take, bytes in all."""
    return messages * PER_MESSAGE + size * COPIES


class MemoryBudget:
    """Keeps account of what callers make the process hold.

    Args:
        limit: bytes in all.
    """

    def __init__(self, limit: int) -> None:
        self._of_caller: dict[str, int] = {}
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self.used: dict[Kind, int] = {"requests": 0, "streams": 0, "subscriptions": 0}
        """Bytes, by what holds them."""
        self.free = limit
        """Bytes that are left."""

    def fits(self, caller: str, size: int) -> bool:
        """Whether so much more is within a caller's part."""
        return self._of_caller.get(caller, 0) + size <= self.free

    def hold(self, caller: str, kind: Kind, size: int) -> None:
        """Account for bytes in any case; `release` has to follow."""
        self._of_caller[caller] = self._of_caller.get(caller, 0) + size
        self.used[kind] += size
        self.free -= size

    def take(self, caller: str, kind: Kind, size: int) -> None:
        """Account for bytes; `release` has to follow.

        Raises:
            RelayError: OVERLOADED: that is more than the caller's part; then `release` must not follow.
        """
        if not self.fits(caller, size):
            raise is_full()
        self.hold(caller, kind, size)

    def release(self, caller: str, kind: Kind, size: int) -> None:
        """Account for bytes that are held no more."""
        left = self._of_caller.get(caller, 0) - size
        if left:
            self._of_caller[caller] = left
        else:
            self._of_caller.pop(caller, None)
        self.used[kind] -= size
        self.free += size
        if self._waiting:
            self._wake()

    def has_room(self, caller: str) -> bool:
        """Whether a caller that can be held back may go on: half of its part is left for what it has begun."""
        return 2 * self._of_caller.get(caller, 0) <= self.free

    async def room(self, caller: str) -> None:
        """Wait until a caller may go on: for one that can be held back."""
        while not self.has_room(caller):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((caller, future))
            try:
                await future
            finally:
                # One at a time, since who goes on may fill the room; and who leaves passes its turn on.
                if future.done():
                    asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        """Wake one who has room, if there is one among the first."""
        for _ in range(min(_LOOK_AHEAD, len(self._waiting))):
            caller, future = self._waiting.popleft()
            if future.done():
                continue
            if self.has_room(caller):
                future.set_result(None)
                return
            self._waiting.append((caller, future))


def is_full() -> RelayError:
    """Make the error for a caller beyond its part."""
    return overloaded(
        "memory",
        "The gateway holds as many messages of this caller as it may. Try again when some are answered.",
        0.5,
    )
