"""`custommsg-server certs`: a CA, a certificate for the server and one for a client."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from custommsg_server.domain.errors import UserError

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397
"""Days; browsers and others accept no longer validity."""
CLN: Final = "cln"
"""The name in the certificate of cln-grpc, which many of its clients expect, whatever the server's address is."""
_SKEW: Final = timedelta(hours=1)


class CertsError(UserError):
    """The certificates were not made; the message says why."""


def make(folder: Path, hosts: Sequence[str], client: str) -> list[Path]:
    """Make a CA, and certificates for a server and a client; return the files that were written.

    Args:
        folder: where to write them; it is created if it does not exist.
        hosts: names and IP addresses under which the server is reached.
        client: the client's name, by which the gateway knows it.

    Raises:
        CertsError: one of the files exists already, or cannot be written.
    """
    ca_key, server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca = _sign("custommsg CA", ca_key, None, ca_key, CA_DAYS)
    names = [*dict.fromkeys([*hosts, CLN])]
    server = _sign(hosts[0], server_key, ca, ca_key, LEAF_DAYS, names, ExtendedKeyUsageOID.SERVER_AUTH)
    leaf = _sign(client, client_key, ca, ca_key, LEAF_DAYS, [client], ExtendedKeyUsageOID.CLIENT_AUTH)
    files = {
        "ca.pem": (0o644, ca.public_bytes(Encoding.PEM)),
        "ca.key": (0o600, _pem(ca_key)),
        "server.pem": (0o644, server.public_bytes(Encoding.PEM)),
        "server.key": (0o600, _pem(server_key)),
        "client.pem": (0o644, leaf.public_bytes(Encoding.PEM)),
        "client.key": (0o600, _pem(client_key)),
    }
    paths = [folder / name for name in files]
    if there := [path for path in paths if path.exists()]:
        raise CertsError(f"{there[0]} exists already, and is not overwritten. Choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, (mode, content) in zip(paths, files.values(), strict=True):
            # O_EXCL: a file that appeared meanwhile is not overwritten. The mode applies from the start.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise CertsError(f"Cannot write to {folder}: {error.strerror}.") from None
    return paths


def _sign(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
    names: Sequence[str] = (),
    usage: x509.ObjectIdentifier | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.BasicConstraints(ca=usage is None, path_length=0 if usage is None else None), True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        .add_extension(_key_usage(usage is None), True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_alternative, names))), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
