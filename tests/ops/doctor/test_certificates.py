"""The doctor's checks of certificates and keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from custommsg_server.ops.doctor.certificates import check

Files = tuple[Path | None, Path | None, Path | None]


def make(folder: Path, days: float = 100, from_days: float = -1, name: str = "server") -> tuple[Path, Path]:
    """Make a certificate that is valid for some days, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(from_days, days - 1)))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].chmod(0o600)
    return paths


def open_key(folder: Path) -> Files:
    cert, key = make(folder)
    key.chmod(0o644)
    return cert, key, None


def garbage(folder: Path) -> Files:
    (folder / "garbage").write_text("no certificate")
    return folder / "garbage", folder / "garbage", None


@pytest.mark.parametrize(
    ("files", "level", "said"),
    [
        (lambda folder: (None, None, None), "ok", "not set up"),
        (lambda folder: (*make(folder), None), "ok", "belongs to the certificate"),
        (lambda folder: (make(folder)[0], None, None), "fix", "one of tls_cert and tls_key is missing"),
        (lambda folder: (folder / "none", make(folder)[1], None), "fix", "No such file"),
        (lambda folder: (*make(folder, days=-2), None), "fix", "expired on"),
        (lambda folder: (*make(folder, days=7), None), "note", "expires on"),
        (lambda folder: (*make(folder, from_days=2), None), "fix", "valid only from"),
        (lambda folder: (make(folder)[0], make(folder, name="b")[1], None), "fix", "does not belong"),
        (garbage, "fix", "has no certificate"),
        (garbage, "fix", "has no key"),
        (open_key, "note", "can be read by every user"),
        (lambda folder: (*make(folder), folder / "ca"), "fix", "No such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_found(
    files: Callable[[Path], Files], level: str, said: str, tmp_path: Path
) -> None:
    """Correct files are reported as ok."""
    findings = list(check(*files(tmp_path)))
    assert [finding for finding in findings if finding.level == level and said in finding.said], findings
