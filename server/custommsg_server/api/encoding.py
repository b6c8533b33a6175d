"""Events as the bytes of responses: each event, and each batch, is encoded once for all subscribers of a contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from custommsg_server.api import convert
from custommsg_server.domain.events import MESSAGE
from custommsg_server.inbox.port import Batch, Event

MAX_SIZE: Final = 4 << 20
"""Bytes of encoded events that are kept; the oldest are dropped first."""
_OVERHEAD: Final = 200
"""Bytes of memory that a kept event takes beside its encoding, about."""


class Encoder:
    """Encodes events, and keeps what was encoded last.

    Args:
        encode: encodes one event.
        max_size: bytes that are kept.
    """

    def __init__(self, encode: Callable[[Event], bytes], max_size: int = MAX_SIZE) -> None:
        self._encode = encode
        self._room = max_size
        # By the peer, too: a subscriber that may not see the peer of an interruption gets it without.
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

    def messages_of(self, batch: Batch) -> list[bytes]:
        """Return the bytes of each message of a batch; what else happened is left out."""
        encoded: list[bytes] | None = batch.derived.get(self)
        if encoded is None:
            encoded = [self.of(event) for event in batch.events if event.arrival.kind is MESSAGE]
            batch.derived[self] = encoded
        return encoded


def batch_encoder() -> Callable[[Batch], bytes]:
    """Return what turns batches into the bytes of a SubscribeCustomMsgsResponse.

    A repeated field is its elements one after the other, each with its tag and its length, so that encoded events
    only have to be joined: https://protobuf.dev/programming-guides/encoding/.
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
