"""Writes collected over one turn of the event loop, with a bound on what waits."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Sink(Protocol):
    """What an outbox writes to: asyncio's StreamWriter is one."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The way out."""

    async def drain(self) -> None:
        """Wait until the other side has taken enough for more to be worth writing."""


class OutboxFullError(Exception):
    """The other side does not read, and enough waits for it already."""


class Outbox:
    """The way out of a connection: many small writes become one system call.

    Args:
        sink: where it goes.
        limit: bytes that may wait; `write` refuses beyond it. None is no limit, for who awaits `drain`.
    """

    def __init__(self, sink: Sink, limit: int | None = None) -> None:
        self._sink = sink
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def waiting(self) -> int:
        """The bytes that the other side has yet to take."""
        return self._size + self._sink.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send `data` with whatever else this turn of the loop sends.

        Raises:
            OutboxFullError: it was not taken.
        """
        if self._limit is not None and self.waiting + len(data) > self._limit:
            raise OutboxFullError(f"{self.waiting:,} bytes wait for a reader")
        if not self._chunks:
            asyncio.get_running_loop().call_soon(self.flush)
        self._chunks.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Hand everything to the transport now."""
        if self._chunks and not self._sink.transport.is_closing():
            self._sink.transport.write(b"".join(self._chunks))
        self._chunks.clear()
        self._size = 0

    async def drain(self) -> None:
        """Wait until the other side has taken enough for more to be worth writing."""
        self.flush()
        await self._sink.drain()
