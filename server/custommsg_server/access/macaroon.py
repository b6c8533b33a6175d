"""Macaroons that contain a rune, for clients of LND: most of them parse their macaroon before they send it.

The format is version 2 of libmacaroons, as LND's clients write it. The identifier is the text of a rune, and the rune
is the root key. So the gateway can check the signature without a stored key, and the holder can add caveats. But the
holder can also take the rune out of it: only the restrictions of the rune itself bind the holder.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from custommsg_server.access.runes import Rune
from custommsg_server.domain.errors import Reason, RelayError, UserError, no_credential

LOCATION: Final = b"custommsg"
"""For people; no program reads it."""
MAX_CAVEATS: Final = 32
"""Clients add one or two; more would take the event loop's time."""

_VERSION: Final = 2
_EOS, _LOCATION, _IDENTIFIER, _VID, _SIGNATURE = 0, 1, 2, 4, 6
_KEY_GENERATOR: Final = b"macaroons-key-generator"
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:\d\d)", re.ASCII)
_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]+/\d{1,3}", re.ASCII)
_NAME: Final = re.compile(r"[a-z-]{1,30}", re.ASCII)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A macaroon without caveats of third parties. It is a credential, so its repr shows only their number."""

    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Macaroon:
        """Parse a macaroon in binary.

        Raises:
            ValueError: it is not one, or has more than `MAX_CAVEATS`. The error does not quote it.
        """
        if raw[:1] != bytes((_VERSION,)):
            raise ValueError("it is not a macaroon of version 2")
        header, position = _section(raw, 1)
        header.pop(_LOCATION, None)
        if header.keys() != {_IDENTIFIER}:
            raise ValueError("it has no identifier")
        caveats: list[bytes] = []
        while True:
            fields, position = _section(raw, position)
            if not fields:
                break
            if fields.keys() != {_IDENTIFIER}:
                raise ValueError("it has a caveat of a third party")
            caveats.append(fields[_IDENTIFIER])
            if len(caveats) > MAX_CAVEATS:
                raise ValueError(f"it has more than {MAX_CAVEATS} caveats")
        kind, signature, position = _field(raw, position)
        if kind != _SIGNATURE or len(signature) != 32 or position != len(raw):
            raise ValueError("it does not end with its signature")
        return cls(header[_IDENTIFIER], tuple(caveats), signature)

    @property
    def is_authentic(self) -> bool:
        """Whether the signature is that of the identifier and all caveats."""
        return hmac.compare_digest(self.signature, _signature(self.identifier, self.caveats))

    def __repr__(self) -> str:
        return f"Macaroon({len(self.caveats)} caveats)"


def make(rune: str) -> bytes:
    """Return the macaroon of a rune, in binary and without caveats."""
    identifier = rune.encode()
    return b"".join(
        (
            bytes((_VERSION,)),
            _packet(_LOCATION, LOCATION),
            _packet(_IDENTIFIER, identifier),
            bytes((_EOS, _EOS)),
            _packet(_SIGNATURE, _signature(identifier, ())),
        )
    )


def make_checked(rune: str) -> bytes:
    """Return the macaroon of a rune that a person gave.

    Raises:
        UserError: it is not a rune.
    """
    try:
        return make(Rune(rune).text)
    except RelayError:
        raise UserError("This is not a rune. lightning-cli createrune makes one.") from None


def write(file: Path, macaroon: bytes) -> None:
    """Write a macaroon to a new file that only its owner can read.

    Raises:
        UserError: the file exists already, or cannot be written.
    """
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(macaroon)
    except FileExistsError:
        raise UserError(f"{file} exists already, and is not overwritten. Choose another name.") from None
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror}.") from None


def rune_in(raw: bytes, peer: str, now: float) -> str:
    """Return the rune in a macaroon whose caveats are satisfied.

    Args:
        raw: the macaroon.
        peer: the address of the caller, as gRPC writes it.
        now: seconds since 1970.

    Raises:
        RelayError: NO_CREDENTIAL: it is not a macaroon of this gateway; NOT_PERMITTED: a caveat is not satisfied.
    """
    try:
        macaroon = Macaroon.parse(raw)
        rune = macaroon.identifier.decode("ascii")
    except ValueError:
        raise no_credential("the macaroon cannot be read. custommsg-server macaroon RUNE makes one") from None
    if not macaroon.is_authentic:
        raise no_credential(
            "the macaroon's signature is wrong: it is of another service, or a caveat was removed or changed."
            " custommsg-server macaroon RUNE makes one"
        )
    for caveat in macaroon.caveats:
        name, _, value = caveat.decode(errors="replace").partition(" ")
        if (why := _complaint(name, value, peer, now)) is not None:
            raise RelayError(Reason.NOT_PERMITTED, f"The macaroon does not permit this: {why}.")
    return rune


def _complaint(name: str, value: str, peer: str, now: float) -> str | None:
    """Return why a caveat is not satisfied, or None. Names and values are LND's: macaroons/constraints.go."""
    match name:
        case "time-before":
            expires = _time(value)
            if expires is None:
                return "its caveat time-before has no time as in RFC 3339"
            return None if datetime.fromtimestamp(now, UTC) < expires else "it has expired (time-before)"
        case "ipaddr" | "iprange":
            address, network = _address(peer), _network(value, name == "iprange")
            if network is None:
                return f"its caveat {name} has no IP address"
            if address is None:
                return f"it has the caveat {name}, and this connection has no IP address (a unix socket)"
            return None if address in network else f"it is for another IP address ({name})"
        case _:
            known = "time-before, ipaddr and iprange"
            shown = f" {name}" if _NAME.fullmatch(name) else ""
            return f"it has a caveat{shown} that the gateway does not know; it knows {known}"


def _time(text: str) -> datetime | None:
    found = _TIME.fullmatch(text)
    try:
        return datetime.fromisoformat(found[1] + found[2]) if found else None
    except ValueError:
        return None


def _network(text: str, is_range: bool) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        if is_range:
            return ipaddress.ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
        return ipaddress.ip_network(_unmapped(ipaddress.ip_address(text)))
    except ValueError:
        return None


def _address(peer: str) -> Address | None:
    """Return the IP address in gRPC's text: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`; None for a unix socket."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    try:
        return _unmapped(ipaddress.ip_address(unquote(rest).rpartition(":")[0].strip("[]")))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    # A socket for IPv6 shows a caller with IPv4 as ::ffff:10.0.0.1.
    return getattr(address, "ipv4_mapped", None) or address


def _signature(identifier: bytes, caveats: tuple[bytes, ...]) -> bytes:
    signature = hmac.digest(_KEY_GENERATOR, identifier, "sha256")
    for text in (identifier, *caveats):
        signature = hmac.digest(signature, text, "sha256")
    return signature


def _section(raw: bytes, position: int) -> tuple[dict[int, bytes], int]:
    """Parse fields in ascending order, up to an end of section; return them and the position after it."""
    fields: dict[int, bytes] = {}
    last = 0
    while True:
        kind, value, position = _field(raw, position)
        if kind == _EOS:
            return fields, position
        if kind <= last or kind not in (_LOCATION, _IDENTIFIER, _VID):
            raise ValueError("its fields are out of order")
        fields[kind], last = value, kind


def _field(raw: bytes, position: int) -> tuple[int, bytes, int]:
    kind, position = _number(raw, position)
    if kind == _EOS:
        return kind, b"", position
    size, position = _number(raw, position)
    end = position + size
    if end > len(raw):
        raise ValueError("it is too short")
    return kind, raw[position:end], end


def _number(raw: bytes, position: int) -> tuple[int, int]:
    """Parse a number of up to 14 bits, as varint: larger ones do not fit into a header."""
    for index, byte in enumerate(raw[position : position + 2]):
        if byte < 0x80:
            return byte << 7 * index | (raw[position] & 0x7F if index else 0), position + index + 1
    raise ValueError("it is too short, or has a number that is too large")


def _packet(kind: int, value: bytes) -> bytes:
    size = len(value)
    return bytes((kind, size) if size < 0x80 else (kind, size & 0x7F | 0x80, size >> 7)) + value
