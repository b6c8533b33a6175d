"""The custom messages that came in, kept for who asks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from custommsg_server.domain import wire

LIMIT: Final = 64 * 1024 * 1024
"""Bytes that are kept; beyond it the oldest messages go."""

_OVERHEAD: Final = 256  # about what a message costs beside its bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A custom message as it came in.

    Args:
        peer_id: who sent it, 33 bytes.
        message: its type and payload.
    """

    peer_id: bytes
    message: bytes

    @property
    def type(self) -> int:
        """The type; of a message of at least 2 bytes."""
        return wire.message_type(self.message)

    @property
    def payload(self) -> bytes:
        """What follows the type."""
        return self.message[2:]


class MessagesLostError(LookupError):
    """More came in than is kept, and the oldest of it went before it was read."""


class ReceivedMessages:
    """A queue of what came in: `async for` gives each message once, in order.

    Nobody has to read it: it is bounded, and says so when a reader has missed something.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: deque[Received] = deque()
        self._size = 0
        self._lost = 0
        self._arrival = asyncio.Event()
        self.count = 0
        """How many came in since the node started."""

    def put(self, received: Received) -> None:
        """Add a message."""
        self.count += 1
        self._kept.append(received)
        self._size += len(received.message) + _OVERHEAD
        while self._size > self._limit:
            self._size -= len(self._kept.popleft().message) + _OVERHEAD
            self._lost += 1
        self._arrival.set()

    async def next(self, timeout: float = 10.0) -> Received:
        """Take the next message.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: none came.
            MessagesLostError: messages before it were dropped; told once.
        """
        async with asyncio.timeout(timeout):
            while not self._kept:
                self._arrival.clear()
                await self._arrival.wait()
        if self._lost:
            lost, self._lost = self._lost, 0
            raise MessagesLostError(f"{lost:,} messages came in and were dropped before they were read")
        received = self._kept.popleft()
        self._size -= len(received.message) + _OVERHEAD
        return received

    def clear(self) -> None:
        """Forget what was not read."""
        self._kept.clear()
        self._size = self._lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def __aiter__(self) -> AsyncIterator[Received]:
        while True:
            yield await self.next(timeout=3600.0)
