"""JSON values out of a stream of bytes, without separators between them, and JSON with lightningd's separators.

json.JSONDecoder.raw_decode would have to begin anew with every piece of a value that comes in, and cannot tell a value
that is not complete yet from one that is wrong. So brackets are counted first, each byte once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

LIMIT: Final = 16 * 1024 * 1024
"""The largest value, in bytes. lightningd has no such limit."""

# Matches everything up to the next bracket that is not within a string. The quantifiers are possessive: a string whose
# end has not come yet fails at once, without backtracking.
_TO_NEXT: Final = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_WHITESPACE: Final = b" \t\r\n"
_QUOTE: Final = ord('"')


class NotJsonError(Exception):
    """What came in is not JSON, or too long, so that nobody can say where the next value begins.

    The message is the beginning of what came in.
    """


class JsonFrames:
    """Cuts a stream of bytes into JSON objects and arrays.

    Args:
        limit: the largest value, in bytes. So much may be kept until a value is complete.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._buffer = b""
        self._at = 0  # how far the brackets have been counted
        self._depth = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take in what was read, and yield the values that are complete now, in order.

        Raises:
            NotJsonError: after the values that came before it.
        """
        self._buffer += data
        start = 0
        while (end := self._find_end(start)) is not None:
            try:
                yield json.loads(self._buffer[start:end])
            except (ValueError, RecursionError):
                raise NotJsonError(_beginning(self._buffer[start:])) from None
            start = end
        self._buffer = self._buffer[start:]
        self._at -= start
        if len(self._buffer) > self._limit:
            raise NotJsonError(_beginning(self._buffer))

    def _find_end(self, start: int) -> int | None:
        buffer = self._buffer
        if self._depth == 0:
            rest = buffer[start : start + 64].lstrip(_WHITESPACE)
            if rest[:1] not in (b"", b"{", b"["):
                raise NotJsonError(_beginning(buffer[start:]))
        at = max(self._at, start)
        while True:
            match = _TO_NEXT.match(buffer, at)
            assert match is not None
            at = match.end()
            if at == len(buffer) or buffer[at] == _QUOTE:  # a string whose end is not here yet
                self._at = at
                return None
            self._depth += 1 if buffer[at] in b"{[" else -1
            at += 1
            if self._depth <= 0:
                self._at, self._depth = at, 0
                return at


def _beginning(data: bytes) -> str:
    return data[:200].decode(errors="replace")


def encode(value: object, *, spaced: bool = False) -> bytes:
    """Write a value as JSON, with the two line feeds that end each of lightningd's messages.

    Args:
        value: anything that json.dumps takes.
        spaced: with spaces after `,` and `:`, as lightningd does for some replies.
    """
    separators = None if spaced else (",", ":")
    return json.dumps(value, ensure_ascii=False, separators=separators).encode(errors="replace") + b"\n\n"
