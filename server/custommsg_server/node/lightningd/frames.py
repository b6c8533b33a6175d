"""Cuts a stream into JSON-RPC messages: lightningd ends each with two newlines, on its socket and to its plugins."""

from __future__ import annotations

from typing import Final

END: Final = b"\n\n"
"""The end of a message. In JSON, two newlines stand only between messages, never within a string."""


class FrameError(Exception):
    """What came has no end within the size that is allowed."""


class Frames:
    """Collects bytes until messages are complete.

    Args:
        max_size: bytes that a message may have.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> bytes:
        """Take what came; return the messages that are complete now, with END between them, or nothing.

        Raises:
            FrameError: a message has no end.
        """
        buffer = self._buffer
        buffer += data
        end = buffer.rfind(END, self._scanned)
        if end < 0:
            self._scanned = max(0, len(buffer) - 1)
            if len(buffer) > self._max_size:
                raise FrameError(f"a message without an end within {self._max_size:,} bytes")
            return b""
        complete = bytes(buffer[:end])
        del buffer[: end + len(END)]
        self._scanned = max(0, len(buffer) - 1)
        return complete
