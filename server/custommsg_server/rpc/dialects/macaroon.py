"""Where an LND client shows who it is: `macaroon` metadata, in which it carries a rune to us.

A rune is text of base64url. LND's clients take a macaroon's bytes and send them as hex digits, so the text of the rune
is what stands for the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

KEY: Final = "macaroon"
MAX_SIZE: Final = 4096
"""Bytes of a rune: beyond any real one."""
_RUNE: Final = re.compile(rb"[A-Za-z0-9_-]+={0,2}")


def rune_of(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the rune that a call's metadata carry as a macaroon, or None.

    None also for what is no rune at all, such as a macaroon that LND has made: such a caller shows no credential.
    """
    for key, value in metadata:
        if key == KEY and isinstance(value, str):
            return rune_from_hex(value)
    return None


def rune_from_hex(text: str) -> str | None:
    """Return the rune whose text these hex digits are, or None."""
    if len(text) > 2 * MAX_SIZE or not re.fullmatch(r"([0-9A-Fa-f]{2})+", text):
        return None
    raw = bytes.fromhex(text)
    return raw.decode() if _RUNE.fullmatch(raw) else None


def hex_of(rune: str) -> str:
    """Write a rune as LND's clients send it."""
    return rune.encode().hex()
