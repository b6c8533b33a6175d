"""Parses addresses to listen on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from custommsg_server.domain.errors import UserError


class ListenError(UserError):
    """The gateway cannot listen there; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: `host:port` or `unix:/path`."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address. Raises ValueError: the text is not an address."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                raise ValueError(f"{text!r} has no path; write unix:/path/to/socket")
            return cls(path=Path(path))
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"{text!r} is not an address; write host:port, [ipv6]:port or unix:/path")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def is_local(self) -> bool:
        """Whether it can be reached from this machine only."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
