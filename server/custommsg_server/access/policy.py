"""Which settings are safe together: the gateway starts with no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from custommsg_server.access.access import Require
from custommsg_server.domain.address import Address


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say of who may come in."""

    addresses: Sequence[Address]
    require: Require
    insecure: bool
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None

    def check(self) -> None:
        """Refuse what would let in somebody by mistake.

        Raises:
            ValueError: what is wrong, and which setting would allow it.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; custommsg-server certs DIR makes both")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(
                "tls_client_ca needs tls_cert and tls_key: without TLS no client shows a certificate"
            )
        if self.insecure:
            return
        for address in self.addresses:
            if not address.is_local and self.tls_cert is None:
                raise ValueError(
                    f"{address} can be reached by other machines, and runes would pass in the clear."
                    " Set tls_cert and tls_key (custommsg-server certs DIR makes some), listen on 127.0.0.1 or"
                    " unix:/path, or say --insecure to let everybody in"
                )
        if self.require == "client-cert":
            self._check_certificates()

    def _check_certificates(self) -> None:
        if self.tls_client_ca is None:
            raise ValueError(
                "require = client-cert needs tls_client_ca, and tls_cert and tls_key with it;"
                " custommsg-server certs DIR makes them"
            )
        for address in self.addresses:
            if address.path is not None:
                raise ValueError(
                    f"nobody can show a certificate on {address}, which has no TLS."
                    " Say require = rune-or-client-cert, or do not listen there"
                )
