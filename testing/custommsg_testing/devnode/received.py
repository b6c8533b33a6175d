"""The custom messages that came in, kept until they are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from custommsg_server.domain import wire

LIMIT: Final = 64 * 1024 * 1024
"""Bytes that are kept. Beyond it, the oldest messages are dropped."""

_OVERHEAD: Final = 256  # about the memory of a message beside its bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A custom message as it came in.

    Args:
        peer_id: the node id of the sender, 33 bytes.
        message: its type and payload.
    """

    peer_id: bytes
    message: bytes

    @property
    def type(self) -> int:
        """The type. The message must have at least 2 bytes."""
        return wire.message_type(self.message)

    @property
    def payload(self) -> bytes:
        """What follows the type."""
        return self.message[2:]


class MessagesLostError(LookupError):
    """More messages came in than are kept, and the oldest were dropped before they were read."""


class ReceivedMessages:
    """A queue of the messages that came in. `async for` yields each of them once, in order.

    Nobody has to read it: it keeps a limited number of bytes, and tells a reader if messages were dropped.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: deque[Received] = deque()
        self._size = 0
        self._lost = 0
        self._arrival = asyncio.Event()
        self.count = 0
        """How many messages came in since the node started."""

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
            TimeoutError: no message came.
            MessagesLostError: messages before it were dropped. It is raised once for all of them.
        """
        async with asyncio.timeout(timeout):
            while not self._kept:
                self._arrival.clear()
                await self._arrival.wait()
        if self._lost:
            lost, self._lost = self._lost, 0
            raise MessagesLostError(
                f"{lost:,} messages were dropped, because more came in than is kept; read them sooner"
            )
        received = self._kept.popleft()
        self._size -= len(received.message) + _OVERHEAD
        return received

    def clear(self) -> None:
        """Drop all messages that were not read."""
        self._kept.clear()
        self._size = self._lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def __aiter__(self) -> AsyncIterator[Received]:
        while True:
            yield await self.next(timeout=3600.0)
