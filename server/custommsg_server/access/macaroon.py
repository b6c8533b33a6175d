"""Where clients of the dialects show a rune: LND's as a `macaroon`, Greenlight's as `glrune`.

A rune is text of base64url. LND's clients take a macaroon's bytes and send them as hex digits, so the text of the rune
is what stands for the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

KEY: Final = "macaroon"
GREENLIGHT_KEY: Final = "glrune"
MAX_SIZE: Final = 4096
"""Bytes of a rune: beyond any real one."""
_RUNE: Final = re.compile(rb"[A-Za-z0-9_-]+={0,2}")


def rune_of(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the rune that a call's metadata carry in the way of a dialect, or None.

    None also for what is no rune at all, such as a macaroon that LND has made: such a caller shows no credential.
    """
    for key, value in metadata:
        if isinstance(value, bytes):
            continue
        if key == KEY:
            return rune_from_hex(value)
        if key == GREENLIGHT_KEY:
            return value if _is_rune(value.encode()) else None
    return None


def rune_from_hex(text: str) -> str | None:
    """Return the rune whose text these hex digits are, or None."""
    if len(text) > 2 * MAX_SIZE or not re.fullmatch(r"([0-9A-Fa-f]{2})+", text):
        return None
    raw = bytes.fromhex(text)
    return raw.decode() if _is_rune(raw) else None


def hex_of(rune: str) -> str:
    """Write a rune as LND's clients send it."""
    return rune.encode().hex()


def _is_rune(raw: bytes) -> bool:
    return len(raw) <= MAX_SIZE and _RUNE.fullmatch(raw) is not None
