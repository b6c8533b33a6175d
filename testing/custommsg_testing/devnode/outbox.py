"""Writes collected for one turn of the event loop, and a limit on what may wait."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Sink(Protocol):
    """What an outbox writes to. asyncio's StreamWriter is one."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport to write to."""

    async def drain(self) -> None:
        """Wait until the other side has read enough to be sent more."""


class OutboxFullError(Exception):
    """The other side does not read, and the limit of what may wait for it is reached."""


class Outbox:
    """Collects what is written to a connection, so that many small writes become one system call.

    Args:
        sink: the connection.
        limit: bytes that may wait; `write` refuses more. None: no limit, for callers that await `drain`.
    """

    def __init__(self, sink: Sink, limit: int | None = None) -> None:
        self._sink = sink
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def waiting(self) -> int:
        """How many bytes the other side has not read yet."""
        return self._size + self._sink.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send `data` together with everything else that is written in this turn of the loop.

        Raises:
            OutboxFullError: nothing is sent.
        """
        if self._limit is not None and self.waiting + len(data) > self._limit:
            raise OutboxFullError(f"{self.waiting:,} bytes wait to be read")
        if not self._chunks:
            asyncio.get_running_loop().call_soon(self.flush)
        self._chunks.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write everything now."""
        if self._chunks and not self._sink.transport.is_closing():
            self._sink.transport.write(b"".join(self._chunks))
        self._chunks.clear()
        self._size = 0

    async def drain(self) -> None:
        """Wait until the other side has read enough to be sent more."""
        self.flush()
        await self._sink.drain()
