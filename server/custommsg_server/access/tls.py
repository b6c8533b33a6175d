"""TLS: certificates and keys, which are read again when their files change.

gRPC asks for the certificate at the start of each handshake. So new connections get the new certificate, and existing
ones keep theirs until their maximum age. The oldest version that gRPC supports is TLS 1.2.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

log = structlog.get_logger()

SOON: Final = 14
"""A certificate that expires in fewer days causes a warning."""


class TlsError(Exception):
    """A certificate or a key cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The paths of the files, all in PEM.

    Args:
        cert: the server's certificate, followed by intermediate certificates.
        key: its key.
        client_ca: the CA of client certificates; None: clients need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All paths."""
        return [path for path in (self.cert, self.key, self.client_ca) if path]

    def read(self) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
        """Read and check them; return what gRPC needs, and when the certificate ends.

        Raises:
            TlsError: one of them cannot be read, or they do not match.
        """
        cert, key = _read(self.cert), _read(self.key)
        chain = _certificates(self.cert, cert)
        try:
            private = load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise TlsError(f"{self.key} is not a PEM key without a password") from None
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if private.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
            raise TlsError(f"the key in {self.key} does not belong to the certificate in {self.cert}")
        ends = chain[0].not_valid_after_utc
        if ends <= datetime.now(UTC):
            raise TlsError(f"the certificate in {self.cert} expired on {ends:%Y-%m-%d}")
        roots = None
        if self.client_ca is not None:
            roots = _read(self.client_ca)
            _certificates(self.client_ca, roots)
        return grpc.ssl_server_certificate_configuration([(key, cert)], roots), ends


class Tls:
    """The server's side of TLS. Raises TlsError if the files cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp = _stamp(files.paths)
        configuration, ends = files.read()
        _tell(files, ends)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            configuration,
            self._changed,  # type: ignore[arg-type] # None is "no change"; types-grpcio does not know it
            require_client_authentication=files.client_ca is not None,
        )
        """For gRPC."""

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new configuration; None: no change. gRPC calls it in its own threads."""
        with self._lock:
            stamp = _stamp(self._files.paths)
            if stamp == self._stamp:
                return None
            # Also if the files are invalid: that is logged once, and tried again at the next change.
            self._stamp = stamp
            try:
                configuration, ends = self._files.read()
            except TlsError as error:
                log.error("the new certificate cannot be used; the old one is kept", why=str(error))
                return None
            _tell(self._files, ends)
            return configuration


def _tell(files: TlsFiles, ends: datetime) -> None:
    days = (ends - datetime.now(UTC)).days
    say = log.warning if days < SOON else log.info
    say("certificate in use", file=str(files.cert), ends=f"{ends:%Y-%m-%d}", days_left=days)


def _stamp(paths: list[Path]) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            # Kubernetes replaces a symbolic link: then the inode changes, and the time may not.
            found = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return stamps


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {path}: {error.strerror}") from None


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsError(f"{path} does not contain a PEM certificate") from None
