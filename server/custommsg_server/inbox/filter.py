"""Which events a subscriber wants."""

from __future__ import annotations

from dataclasses import dataclass

from custommsg_server.domain.events import MESSAGE, Arrival, Kind
from custommsg_server.domain.types import TypeSet


@dataclass(frozen=True, slots=True)
class Filter:
    """An event passes if it matches each field; None matches every event.

    An interruption passes, whatever types are wanted, if it concerns all peers or a wanted one: it says that events may
    be missing.
    """

    peer_ids: frozenset[bytes] | None = None
    """The peers, 33 bytes each."""
    types: TypeSet | None = None
    """The types of messages, also of those in the outbox; connects and disconnects have no type, so this does not apply
    to them."""
    peer_events: bool = False
    """Whether connects and disconnects are wanted."""
    outbox_events: bool = False
    """Whether the endings of entries of the outbox are wanted."""

    def passes(self, arrival: Arrival) -> bool:
        """Return whether the subscriber wants it."""
        kind = arrival.kind
        if self.peer_ids is not None and arrival.peer_id and arrival.peer_id not in self.peer_ids:
            return False
        if kind is MESSAGE or (self.outbox_events and kind is Kind.OUTBOX):
            message = arrival.message
            return self.types is None or (message[0] << 8 | message[1]) in self.types
        return kind is Kind.INTERRUPTION or (self.peer_events and kind is not Kind.OUTBOX)
