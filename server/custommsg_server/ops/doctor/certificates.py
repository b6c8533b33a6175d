"""Checks certificates and keys: readable, matching, not expired."""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from custommsg_server.ops.doctor.finding import Finding

_SOON: Final = timedelta(days=14)
_NEW: Final = "Make new ones: custommsg-server certs."


def check(cert: Path | None, key: Path | None, client_ca: Path | None) -> Iterator[Finding]:
    """Check the files of a TLS listener; None is a file that is not set."""
    if cert is None and key is None and client_ca is None:
        yield Finding("certificates", "ok", "TLS is not set up")
        return
    if (cert is None) != (key is None):
        yield Finding(
            "certificates", "fix", "one of tls_cert and tls_key is missing", "Set both, or neither."
        )
    served = (yield from _certificate("tls_cert", cert)) if cert else None
    if client_ca:
        yield from _certificate("tls_client_ca", client_ca)
    if key:
        yield from _key(key, served)


def _certificate(name: str, path: Path) -> Generator[Finding, None, x509.Certificate | None]:
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        yield Finding(
            name, "fix", f"{path}: {error.strerror}", "Set the right path, and let this user read it."
        )
        return None
    except ValueError:
        yield Finding(name, "fix", f"{path} has no certificate in PEM", _NEW)
        return None
    now, until = datetime.now(UTC), certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        yield Finding(
            name,
            "fix",
            f"{path} is valid only from {certificate.not_valid_before_utc:%F}",
            "Check the clock.",
        )
    elif until < now:
        yield Finding(name, "fix", f"{path} expired on {until:%F}", "Replace it; no restart is needed.")
    elif until - now < _SOON:
        yield Finding(name, "note", f"{path} expires on {until:%F}", "Replace it; no restart is needed.")
    else:
        yield Finding(name, "ok", f"{path} is valid until {until:%F}")
    return certificate


def _key(path: Path, certificate: x509.Certificate | None) -> Iterator[Finding]:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield Finding(
            "tls_key", "fix", f"{path}: {error.strerror}", "Set the right path; let this user read it."
        )
        return
    except (ValueError, TypeError):
        yield Finding("tls_key", "fix", f"{path} has no key in PEM without a password", _NEW)
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate and key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        yield Finding("tls_key", "fix", f"{path} does not belong to the certificate in tls_cert", _NEW)
    elif mode & 0o007:
        yield Finding("tls_key", "note", f"{path} can be read by every user", f"chmod 0600 {path}")
    else:
        yield Finding("tls_key", "ok", f"{path} belongs to the certificate")
