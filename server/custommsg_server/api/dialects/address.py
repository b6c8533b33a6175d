"""Addresses of peers as clients write them: host, host:port, [ipv6]:port."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from custommsg_server.domain.errors import Reason, RelayError

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?")


def parse_address(text: str, default_port: int, field: str) -> tuple[str, int]:
    """Parse a host and its port.

    Only a host name or an IP address is allowed; lightningd would also accept the path of a unix socket.

    Args:
        text: the address in the request.
        default_port: the port if the text has none.
        field: the field of the request that has it.

    Raises:
        RelayError: INVALID_NODE_ID.
    """
    host, port = _split(text, default_port)
    if not (_is_ipv6(host) or _HOST.fullmatch(host)) or not 0 <= port <= 65_535:
        raise RelayError(
            Reason.INVALID_NODE_ID,
            "The peer's address is invalid. Write host, host:port or [ipv6]:port.",
            field=field,
        )
    return host, port


def _split(text: str, default_port: int) -> tuple[str, int]:
    """Split host and port; an invalid port becomes -1."""
    if _is_ipv6(text):
        return text, default_port
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(host) or rest[:1] not in ("", ":"):
            return "", -1
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
    if not colon:
        return host, default_port
    return host, (int(port) or -1) if re.fullmatch(r"[0-9]{1,5}", port) else -1


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
