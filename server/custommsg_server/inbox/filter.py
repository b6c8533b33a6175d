"""Which events a subscriber wants."""

from __future__ import annotations

from dataclasses import dataclass

from custommsg_server.inbox.port import Arrival, Kind


@dataclass(frozen=True, slots=True)
class Filter:
    """Passes what satisfies every field; an empty field is satisfied by everything.

    An interruption always passes: it says that something may be missing, whatever was wanted.
    """

    node_ids: frozenset[bytes] = frozenset()
    """The peers."""
    types: tuple[range, ...] = ()
    """The types of messages; connects and disconnects have none and are not held to it."""
    kinds: frozenset[Kind] = frozenset()
    """What happened."""

    def passes(self, arrival: Arrival) -> bool:
        """Return whether the subscriber wants it."""
        kind = arrival.kind
        if kind is Kind.INTERRUPTION:
            return True
        if self.kinds and kind not in self.kinds:
            return False
        if self.node_ids and arrival.node_id not in self.node_ids:
            return False
        if self.types and kind is Kind.MESSAGE:
            message_type = int.from_bytes(arrival.message[:2], "big")
            return any(message_type in types for types in self.types)
        return True
