"""What a call shows of its caller: a rune in its metadata, a client certificate on its connection."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import grpc

from custommsg_server.access import macaroon

RUNE_KEY: Final = "rune"


def rune_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the rune of a call, or None; LND's clients show it as a macaroon."""
    metadata = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == RUNE_KEY:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return macaroon.rune_of(metadata)


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the name in the client certificate of a call's connection, or None if it has shown none.

    That is the common name, or else the first alternative name, or else a fingerprint. gRPC has verified the
    certificate when the connection was made.
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
