"""The credentials of a call: a rune in its metadata, a client certificate on its connection.

A rune is base64url text in the metadata key `rune`. The clients of the dialects use other keys: LND's `macaroon`,
Greenlight's `glrune`. LND's clients send the bytes of their macaroon file as hex digits; here these bytes are the text
of the rune.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import grpc

RUNE_KEY: Final = "rune"
MACAROON_KEY: Final = "macaroon"
GREENLIGHT_KEY: Final = "glrune"
MAX_SIZE: Final = 4096
"""The maximum size of a rune in bytes: real ones are smaller."""
_RUNE: Final = re.compile(rb"[A-Za-z0-9_-]+={0,2}")


def rune_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the rune of a call, or None."""
    metadata = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == RUNE_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return rune_of_dialect(metadata)


def rune_of_dialect(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the rune that a call has in the metadata key of a dialect, or None.

    None also if the value is not a rune, such as a macaroon of LND: that caller has no credential.
    """
    for key, value in metadata:
        if isinstance(value, bytes):
            continue
        if key == MACAROON_KEY:
            return rune_from_hex(value)
        if key == GREENLIGHT_KEY:
            return value if _is_rune(value.encode()) else None
    return None


def rune_from_hex(text: str) -> str | None:
    """Return the rune whose text these hex digits encode, or None."""
    if len(text) > 2 * MAX_SIZE or not re.fullmatch(r"([0-9A-Fa-f]{2})+", text):
        return None
    raw = bytes.fromhex(text)
    return raw.decode() if _is_rune(raw) else None


def _is_rune(raw: bytes) -> bool:
    return len(raw) <= MAX_SIZE and _RUNE.fullmatch(raw) is not None


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the name in the client certificate of a call's connection, or None if it has none.

    The name is the common name, else the first alternative name, else a fingerprint. gRPC verified the certificate
    when the connection was made.
    """
    shown = context.auth_context()
    pem = next(iter(shown.get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    for field in ("x509_common_name", "x509_subject_alternative_name"):
        for name in shown.get(field, ()):
            if name:
                return bytes(name).decode(errors="replace")[:100]
    return hashlib.sha256(pem).hexdigest()[:16]
