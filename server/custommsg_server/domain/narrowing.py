"""Adds a restriction to a rune, which its holder can do without the node.

The code of a rune is the state of a SHA-256 after the node's secret and all restrictions, each of which is padded as
SHA-256 pads its end (ccan/rune). So a holder goes on from that state; hashlib cannot, and so it is done here.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import Final

from custommsg_server.domain.rune import Restriction, Rune

_SECRET_SIZE: Final = 64
"""Bytes of the node's secret, with its padding."""
_MASK: Final = 0xFFFFFFFF


def _cube_roots() -> tuple[int, ...]:
    """Return the constants of SHA-256: 32 bits of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2)."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
    roots = []
    for prime in primes[:64]:
        low, high = 0, prime << 32
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**3 <= prime << 96 else (low, middle)
        roots.append(low & _MASK)
    return tuple(roots)


_K: Final = _cube_roots()


def narrowed(text: str, restriction: Restriction) -> str:
    """Return the text of a rune with one more restriction.

    Raises:
        ValueError: the text is not a rune.
    """
    rune = Rune.parse(text)
    size = _SECRET_SIZE
    for one in rune.restrictions:
        size += len(encoded(one))
        size += len(padding(size))
    added = encoded(restriction)
    state = struct.unpack(">8I", rune.code)
    data = added + padding(size + len(added))
    for at in range(0, len(data), 64):
        state = _compress(state, data[at : at + 64])
    code = struct.pack(">8I", *state)
    return encode(Rune(code, (*rune.restrictions, restriction)))


def encode(rune: Rune) -> str:
    """Write a rune as it is handed out."""
    return base64.urlsafe_b64encode(rune.code + b"&".join(map(encoded, rune.restrictions))).decode()


def padding(size: int) -> bytes:
    """Return what SHA-256 puts behind `size` bytes."""
    return b"\x80" + bytes((128 - 8 - size % 64 - 1) % 64) + (size * 8).to_bytes(8, "big")


def encoded(restriction: Restriction) -> bytes:
    """Return what a restriction adds to the hash, and to the text."""
    text = "|".join(
        one.field + one.condition + re.sub(r"([\\|&])", r"\\\1", one.value) for one in restriction
    )
    return text.encode(errors="surrogateescape")


def _compress(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """Mix one block of 64 bytes into a state (FIPS 180-4, 6.2.2)."""
    words = list(struct.unpack(">16I", block))
    for at in range(16, 64):
        w15, w2 = words[at - 15], words[at - 2]
        s0 = _rotated(w15, 7) ^ _rotated(w15, 18) ^ w15 >> 3
        s1 = _rotated(w2, 17) ^ _rotated(w2, 19) ^ w2 >> 10
        words.append((words[at - 16] + s0 + words[at - 7] + s1) & _MASK)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(_K, words, strict=True):
        s1 = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        t1 = h + s1 + (e & f ^ ~e & _MASK & g) + constant + word
        t2 = (_rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t1 + t2) & _MASK, a, b, c, (d + t1) & _MASK, e, f, g
    return tuple((x + y) & _MASK for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True))


def _rotated(word: int, bits: int) -> int:
    return (word >> bits | word << 32 - bits) & _MASK
