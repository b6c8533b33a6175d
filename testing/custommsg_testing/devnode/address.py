"""TCP addresses, as text and as lightningd's JSON."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address.

    Args:
        host: an IPv4 or IPv6 address without brackets, or a host name.
        port: 0 to 65,535; 0 asks the system for a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Address:
        """Read `host:port`, `[ipv6]:port`, or a bare host where there is a default port.

        Raises:
            ValueError: the text is not an address.
        """
        host, colon, port = text.rpartition(":")
        if not colon or (host.count(":") and not host.endswith("]")):
            host, port = text, ""
        host = host.removeprefix("[").removesuffix("]")
        number = int(port) if port.isascii() and port.isdigit() else default_port if not port else None
        if not host or number is None or number > 65_535:
            raise ValueError(f"{text!r} is not an address; write host:port or [ipv6]:port")
        return cls(host, number)

    def to_json(self) -> dict[str, object]:
        """Return the JSON that lightningd's schemas have for an address."""
        try:
            version = ipaddress.ip_address(self.host).version
        except ValueError:
            return {"type": "dns", "address": self.host, "port": self.port}
        return {"type": f"ipv{version}", "address": self.host, "port": self.port}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
