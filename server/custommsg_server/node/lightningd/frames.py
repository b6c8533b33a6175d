"""Splits a stream into JSON-RPC messages. lightningd ends each with two newlines."""

from __future__ import annotations

from typing import Final

END: Final = b"\n\n"
"""The end of a message. JSON of lightningd never contains two newlines."""


class FrameError(Exception):
    """A message exceeds the maximum size."""


class Frames:
    """Collects bytes until messages are complete.

    Args:
        max_size: the maximum size of a message in bytes.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> bytes:
        """Add data; return the messages that are complete now, with END between them, or empty bytes.

        Raises:
            FrameError: a message is too large.
        """
        buffer = self._buffer
        buffer += data
        end = buffer.rfind(END, self._scanned)
        if end < 0:
            self._scanned = max(0, len(buffer) - 1)
            if len(buffer) > self._max_size:
                raise FrameError(f"a message has more than {self._max_size:,} bytes")
            return b""
        complete = bytes(buffer[:end])
        del buffer[: end + len(END)]
        self._scanned = max(0, len(buffer) - 1)
        return complete
