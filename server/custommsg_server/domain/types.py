"""Sets of message types, as people write them: `37913`, `0x9419`, `32768-65535`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from custommsg_server.domain.wire import MAX_TYPE

NODES_OWN: Final = ("7", "9", "0x4c4d", "0x4c4f", "0x594b", "0x594d")
"""The node's own traffic that passes its hook: peer storage, and commando, whose payloads are credentials."""


def parse_range(text: str) -> range:
    """Read one type, or a range with both ends included.

    Raises:
        ValueError: it is none.
    """
    first, dash, last = text.strip().partition("-")
    try:
        numbers = range(int(first, 0), int(last if dash else first, 0) + 1)
    except ValueError:
        numbers = range(0)
    if not numbers or numbers[0] < 0 or numbers[-1] > MAX_TYPE:
        raise ValueError(f"{text.strip()[:40]!r} is no type; write 37913, 0x9419 or 32768-65535")
    return numbers


def parse_set(texts: Iterable[str]) -> frozenset[int]:
    """Read several types and ranges.

    Raises:
        ValueError: one of them is none.
    """
    return frozenset(number for text in texts for number in parse_range(text))
