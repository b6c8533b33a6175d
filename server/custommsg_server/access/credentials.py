"""The credentials of a call: a rune in its metadata, a client certificate on its connection.

A rune is base64url text in the metadata key `rune`. The clients of the dialects use other keys: LND's `macaroon`,
Greenlight's `glrune`. LND's clients send the bytes of their macaroon file as hex digits; here these bytes are a
macaroon with the rune in it, or the text of the rune.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import grpc

from custommsg_server.access import macaroon
from custommsg_server.domain.errors import no_credential

RUNE_KEY: Final = "rune"
MACAROON_KEY: Final = "macaroon"
GREENLIGHT_KEY: Final = "glrune"
MAX_SIZE: Final = 4096
"""The maximum size of a rune or of a macaroon in bytes: real ones are smaller."""
_RUNE: Final = re.compile(rb"[A-Za-z0-9_-]+={0,2}")


def rune_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the rune of a call, or None if it has none.

    Raises:
        RelayError: NO_CREDENTIAL: it has a macaroon without a rune; NOT_PERMITTED: a caveat of it is not satisfied.
    """
    metadata = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == RUNE_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return rune_of_dialect(metadata, context.peer())


def rune_of_dialect(metadata: Iterable[tuple[str, str | bytes]], peer: str) -> str | None:
    """Return the rune that a call has in the metadata key of a dialect, or None.

    Args:
        metadata: of the call.
        peer: the address of the caller, as gRPC writes it.

    Raises:
        RelayError: as for `rune_of`.
    """
    for key, value in metadata:
        if key == MACAROON_KEY and value:
            return rune_from_hex(str(value), peer)
        if key == GREENLIGHT_KEY:
            return value if isinstance(value, str) and _is_rune(value.encode()) else None
    return None


def rune_from_hex(text: str, peer: str) -> str:
    """Return the rune in the hex digits of a macaroon, or of its own text.

    Raises:
        RelayError: as for `rune_of`.
    """
    if len(text) > 2 * MAX_SIZE or not re.fullmatch(r"([0-9A-Fa-f]{2})+", text):
        raise no_credential("the macaroon is not hex digits, or it is too long")
    raw = bytes.fromhex(text)
    return raw.decode() if _is_rune(raw) else macaroon.rune_in(raw, peer, time.time())


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
