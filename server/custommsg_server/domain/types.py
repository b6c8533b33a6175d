"""Sets of message types, and their text form: `37913`, `0x9419`, `32768-65535`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from custommsg_server.domain.wire import MAX_TYPE

NODES_OWN: Final = ("7", "9", "0x4c4d", "0x4c4f", "0x594b", "0x594d")
"""Types of the node itself that reach the hook: peer storage, and commando, whose payloads have credentials."""


class TypeSet:
    """A set of message types; a lookup takes the same time for any set.

    Args:
        ranges: the types; ranges may overlap.
    """

    __slots__ = ("_bits", "ranges")

    def __init__(self, ranges: Iterable[range]) -> None:
        merged: list[range] = []
        for one in sorted((one for one in ranges if one), key=lambda one: one.start):
            if merged and one.start <= merged[-1].stop:
                merged[-1] = range(merged[-1].start, max(merged[-1].stop, one.stop))
            else:
                merged.append(one)
        self.ranges = tuple(merged)
        """The types as the fewest ranges, in order."""
        bits = 0
        for one in merged:
            bits |= ((1 << len(one)) - 1) << one.start
        self._bits = bits.to_bytes((MAX_TYPE + 8) // 8, "little")

    def __contains__(self, number: int) -> bool:
        return number <= MAX_TYPE and bool(self._bits[number >> 3] & 1 << (number & 7))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))

    def __sub__(self, other: TypeSet) -> TypeSet:
        left = self.ranges
        for cut in other.ranges:
            before = (range(one.start, min(one.stop, cut.start)) for one in left)
            after = (range(max(one.start, cut.stop), one.stop) for one in left)
            left = tuple(one for one in (*before, *after) if one)  # else they double with each cut
        return TypeSet(left)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __repr__(self) -> str:
        return f"TypeSet({list(self.ranges)})"


def parse_range(text: str) -> range:
    """Parse one type, or a range including both ends. Raises ValueError: the text is neither."""
    first, dash, last = text.strip().partition("-")
    try:
        numbers = range(int(first, 0), int(last if dash else first, 0) + 1)
    except ValueError:
        numbers = range(0)
    if not numbers or numbers[0] < 0 or numbers[-1] > MAX_TYPE:
        raise ValueError(
            f"{text.strip()[:40]!r} is not a message type or a range of them; write 37913, 0x9419 or 32768-65535"
        )
    return numbers


def parse_set(texts: Iterable[str]) -> TypeSet:
    """Parse several types and ranges. Raises ValueError: one of them is invalid."""
    return TypeSet(map(parse_range, texts))
