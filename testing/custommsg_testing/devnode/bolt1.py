"""The messages of BOLT 1 that every peer must understand, as pure functions over bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pyln.proto.primitives import compactsize_encode

WARNING: Final = 1
INIT: Final = 16
ERROR: Final = 17
PING: Final = 18
PONG: Final = 19

MAX_SIZE: Final = 65_535
_NETWORKS: Final = 1
_ALL_CHANNELS: Final = bytes(32)
_PONG_IGNORED: Final = 65_532

FEATURES: Final = bytes.fromhex("a202")
"""What we offer: data_loss_protect, var_onion, static_remotekey, payment_secret, all optional (BOLT 9).

They concern channels, which we do not have, but other nodes drop a peer that lacks them.
"""


class BadMessageError(Exception):
    """A message breaks a rule of BOLT 1."""


@dataclass(frozen=True, slots=True)
class Init:
    """The first message in each direction.

    Args:
        features: a bit field, big-endian, in which the two fields of BOLT 1 are combined.
        networks: the chain hashes of the peer's networks. None: the message does not say.
    """

    features: bytes
    networks: tuple[bytes, ...] | None = None

    def encode(self) -> bytes:
        """Write the message."""
        out = BytesIO()
        out.write(INIT.to_bytes(2, "big") + bytes(2) + len(self.features).to_bytes(2, "big") + self.features)
        if self.networks is not None:
            _write_tlv(out, _NETWORKS, b"".join(self.networks))
        return out.getvalue()

    @classmethod
    def decode(cls, message: bytes) -> Init:
        """Read the message.

        Raises:
            BadMessageError: the message is malformed, or has an even TLV record that we do not know.
        """
        reader = BytesIO(message)
        if _exactly(reader, 2) != INIT.to_bytes(2, "big"):
            raise BadMessageError("it is not an init")
        old = _exactly(reader, int.from_bytes(_exactly(reader, 2), "big"))
        features = _exactly(reader, int.from_bytes(_exactly(reader, 2), "big"))
        both = int.from_bytes(old, "big") | int.from_bytes(features, "big")
        networks = None
        for number, value in _read_tlvs(reader):
            if number == _NETWORKS:
                if len(value) % 32:
                    raise BadMessageError("the size of its networks is not a multiple of 32")
                networks = tuple(value[at : at + 32] for at in range(0, len(value), 32))
            elif number % 2 == 0:
                raise BadMessageError(f"it has an unknown even TLV record, {number}")
        return cls(both.to_bytes((both.bit_length() + 7) // 8, "big"), networks)


def warning(text: str) -> bytes:
    """Write a warning about all channels; the text is cut to what fits into a message."""
    data = text.encode()[: MAX_SIZE - 36]
    return WARNING.to_bytes(2, "big") + _ALL_CHANNELS + len(data).to_bytes(2, "big") + data


def text_of(message: bytes) -> str:
    """Return the text of a warning or an error, with `?` for what a log cannot show."""
    data = message[36 : 36 + int.from_bytes(message[34:36], "big")]
    return "".join(c if c.isprintable() else "?" for c in data.decode(errors="replace"))


def ping() -> bytes:
    """Write a ping that asks for the shortest pong."""
    return PING.to_bytes(2, "big") + bytes(4)


def pong(ping: bytes) -> bytes | None:
    """Write the answer to a ping. None: the ping asks for no answer.

    Raises:
        BadMessageError: the ping is malformed.
    """
    if len(ping) < 6 or len(ping) < 6 + int.from_bytes(ping[4:6], "big"):
        raise BadMessageError("the ping is shorter than it says")
    size = int.from_bytes(ping[2:4], "big")
    if size >= _PONG_IGNORED:
        return None
    return PONG.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes(size)


def _write_tlv(out: BytesIO, number: int, value: bytes) -> None:
    # pyln-proto's compactsize is big-endian, which BOLT 1 calls a bigsize.
    compactsize_encode(number, out)
    compactsize_encode(len(value), out)
    out.write(value)


def _read_tlvs(reader: BytesIO) -> Iterator[tuple[int, bytes]]:
    last = -1
    while (number := _bigsize(reader)) is not None:
        if number <= last:
            raise BadMessageError("its TLV records are out of order")
        size = _bigsize(reader)
        if size is None:
            raise BadMessageError("it ends within a TLV record")
        yield number, _exactly(reader, size)
        last = number


def _bigsize(reader: BytesIO) -> int | None:
    first = reader.read(1)
    if not first:
        return None
    if first[0] < 0xFD:
        return first[0]
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first[0]]
    value = int.from_bytes(_exactly(reader, size), "big")
    if value < (0xFD if size == 2 else 1 << 4 * size):
        raise BadMessageError("a number is not in its shortest form")
    return value


def _exactly(reader: BytesIO, size: int) -> bytes:
    data = reader.read(min(size, MAX_SIZE))  # the peer chose the size: it can be more than read() takes
    if len(data) != size:
        raise BadMessageError("it ends too early")
    return data
