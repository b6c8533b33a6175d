"""A node's own part of runes: what only the owner of the secret can do. What anybody can is in domain/rune.py.

The code of a rune is a SHA-256 over the node's secret and all restrictions (ccan/rune).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from custommsg_server.domain.narrowing import encoded, padding
from custommsg_server.domain.rune import FIELD, Alternative, Restriction, Rune

_PLAIN: Final = re.compile(rf"({FIELD})([!=/^$~<>{{}}#])(.*)", re.DOTALL)


class Runes:
    """A node's runes. Their secret comes from the node's key; when each was used last is not kept on disk.

    Args:
        key: the node's secret key.
        clock: seconds since 1970.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.secret = hashlib.sha256(b"commando" + key).digest()
        self.clock = clock
        self.used: dict[str, float] = {}
        self.blacklist: set[int] = set()
        self._next = 0

    def next_id(self) -> str:
        """Return an id for a new rune."""
        self._next += 1
        return str(self._next - 1)


def parse_condition(text: str) -> Alternative:
    """Read a condition without escapes, as createrune takes it.

    Raises:
        ValueError: the text has no operator after its field.
    """
    found = _PLAIN.fullmatch(text)
    if found is None:
        raise ValueError("there is no operator after the field")
    return Alternative(*found.groups())


def derive(secret: bytes, restrictions: Iterable[Restriction]) -> Rune:
    """Make the rune that has these restrictions, the first of which is its id."""
    restrictions = tuple(restrictions)
    return Rune(_code(secret, restrictions), restrictions)


def is_derived_from(rune: Rune, secret: bytes) -> bool:
    """Say whether the owner of the secret has made this rune, or a rune that it was derived from."""
    return rune.code == _code(secret, rune.restrictions)


def _code(secret: bytes, restrictions: Iterable[Restriction]) -> bytes:
    # Each part is padded as SHA-256 pads its end, so that the state after it is itself a digest: whoever has that
    # digest can add restrictions, and cannot remove any.
    stream = secret
    for restriction in restrictions:
        stream += padding(len(stream)) + encoded(restriction)
    return hashlib.sha256(stream).digest()
