"""A budget of memory for the messages of callers, shared fairly.

A caller may use as much memory as is free (the dynamic threshold of Choudhury and Hahne, 1998). One caller alone gets
half of the budget, each of n greedy callers gets 1/(n + 1) of it, and some memory is always free for a new caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Literal

from custommsg_server.domain.errors import RelayError, overloaded

Kind = Literal["requests", "streams", "subscriptions"]
"""The use of the memory: calls that wait for the node, messages on send streams, events for subscribers."""

PER_MESSAGE: Final = 1000
"""Bytes that a message takes in addition to its size: objects, the request to the node, the result."""
COPIES: Final = 3
"""How often its bytes are in memory: once as received, and twice, as hex digits, in the request to the node."""
_LOOK_AHEAD: Final = 8
"""How many waiting callers are considered when memory is released."""


def weight(messages: int, size: int) -> int:
    """Return the memory in bytes that messages take; `size` is their total size."""
    return messages * PER_MESSAGE + size * COPIES


class MemoryBudget:
    """Counts the memory that callers use, in bytes, up to a limit in total."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of_caller: dict[str, int] = {}
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self.used: dict[Kind, int] = {"requests": 0, "streams": 0, "subscriptions": 0}
        """Bytes in use, by kind."""
        self.free = limit
        """Free bytes; below 0 after the limit was lowered, or when streams have taken more."""

    def set(self, limit: int) -> None:
        """Apply another limit from now on; what is in use stays."""
        self.free += limit - self._limit
        self._limit = limit
        self._wake()

    def fits(self, caller: str, size: int) -> bool:
        """Whether a caller may use `size` more bytes."""
        return self._of_caller.get(caller, 0) + size <= self.free

    def hold(self, caller: str, kind: Kind, size: int) -> None:
        """Count bytes, even above the limit; `release` has to follow."""
        self._of_caller[caller] = self._of_caller.get(caller, 0) + size
        self.used[kind] += size
        self.free -= size

    def take(self, caller: str, kind: Kind, size: int) -> None:
        """Count bytes; `release` has to follow.

        Raises:
            RelayError: OVERLOADED: the caller may not use so much; then `release` must not follow.
        """
        if not self.fits(caller, size):
            raise is_full()
        self.hold(caller, kind, size)

    def release(self, caller: str, kind: Kind, size: int) -> None:
        """Count bytes as free again."""
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
        """Whether a caller that can wait may continue: it uses at most half of what it may use."""
        return 2 * self._of_caller.get(caller, 0) <= self.free

    async def room(self, caller: str) -> None:
        """Wait until a caller may continue."""
        while not self.has_room(caller):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((caller, future))
            try:
                await future
            finally:
                # Wake one at a time, since it may use up the memory; also when this one was cancelled.
                if future.done():
                    asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        """Wake the first caller that may continue, if there is one among the first few."""
        for _ in range(min(_LOOK_AHEAD, len(self._waiting))):
            caller, future = self._waiting.popleft()
            if future.done():
                continue
            if self.has_room(caller):
                future.set_result(None)
                return
            self._waiting.append((caller, future))


def is_full() -> RelayError:
    """Make the error for a caller that uses too much memory."""
    return overloaded(
        "memory",
        "This caller has reached its part of the memory budget. Wait for some answers, then try again.",
        0.5,
    )
