"""Checks that the settings for access control are safe together; if not, the gateway does not start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custommsg_server.access.access import Require
from custommsg_server.domain.address import Address


def check(
    addresses: Sequence[Address],
    require: Require,
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
) -> None:
    """Refuse settings that would let in callers by mistake.

    Raises:
        ValueError: says what is wrong, and what to set.
    """
    if (tls_cert is None) != (tls_key is None):
        raise ValueError(
            "tls_cert and tls_key have to be set together; custommsg-server certs DIR makes both"
        )
    if tls_client_ca is not None and tls_cert is None:
        raise ValueError(
            "tls_client_ca needs tls_cert and tls_key: without TLS there are no client certificates"
        )
    if insecure:
        return
    for address in addresses:
        if not address.is_local and tls_cert is None:
            raise ValueError(
                f"{address} can be reached by other machines, and runes would be sent unencrypted."
                " Set tls_cert and tls_key (custommsg-server certs DIR makes some), listen on 127.0.0.1 or"
                " unix:/path, or set --insecure to accept calls without credentials"
            )
    if require == "client-cert":
        _check_certificates(addresses, tls_client_ca)


def _check_certificates(addresses: Sequence[Address], tls_client_ca: Path | None) -> None:
    if tls_client_ca is None:
        raise ValueError(
            "require = client-cert needs tls_client_ca, and tls_cert and tls_key with it;"
            " custommsg-server certs DIR makes them"
        )
    for address in addresses:
        if address.path is not None:
            raise ValueError(
                f"{address} has no TLS, so callers there have no certificate."
                " Set require = rune-or-client-cert, or do not listen there"
            )
