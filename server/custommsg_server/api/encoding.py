"""Encodes events for responses: each event and each batch once for all subscribers of a contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from custommsg_server.api import convert
from custommsg_server.domain.events import Kind
from custommsg_server.inbox.port import Batch, Event

MAX_SIZE: Final = 4 << 20
"""The size of the cache of encoded events in bytes; the oldest are dropped first."""
_OVERHEAD: Final = 200
"""The approximate memory of a cached event in bytes, without its encoding."""


class Encoder:
    """Encodes events, and caches the result.

    Args:
        encode: encodes one event.
        max_size: the size of the cache in bytes.
    """

    def __init__(self, encode: Callable[[Event], bytes], max_size: int = MAX_SIZE) -> None:
        self._encode = encode
        self._room = max_size
        # The key includes the peer: for subscribers without permission, the peer of an interruption is removed.
        self._kept: dict[tuple[str, bytes], bytes] = {}

    def of(self, event: Event) -> bytes:
        """Return the bytes of an event."""
        key = event[0], event[1].peer_id
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._encode(event)
            self._room -= len(kept) + _OVERHEAD
            while self._room < 0:
                oldest = next(iter(self._kept))
                self._room += len(self._kept.pop(oldest)) + _OVERHEAD
        return kept

    def each_of(self, batch: Batch) -> list[bytes]:
        """Return the bytes of each event of a batch, without interruptions."""
        encoded: list[bytes] | None = batch.derived.get(self)
        if encoded is None:
            encoded = [
                self.of(event) for event in batch.events if event.arrival.kind is not Kind.INTERRUPTION
            ]
            batch.derived[self] = encoded
        return encoded


def batch_encoder() -> Callable[[Batch], bytes]:
    """Return a function that encodes a batch as a SubscribeCustomMsgsResponse.

    A repeated field is encoded as its elements one after the other, each with tag and length, so encoded events only
    have to be joined: https://protobuf.dev/programming-guides/encoding/.
    """
    encoder = Encoder(lambda event: convert.events_to_response([event]).SerializeToString())

    def encode(batch: Batch) -> bytes:
        encoded: bytes | None = batch.derived.get(encoder)
        if encoded is None:
            position = batch.position.encode()
            encoded = b"".join([*map(encoder.of, batch.events), b"\x12", bytes((len(position),)), position])
            batch.derived[encoder] = encoded
        return encoded

    return encode
