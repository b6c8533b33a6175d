"""Messages that wait for their peers: the entries of the outbox, and their states.

    WAITING_FOR_PEER ──► SENDING ──► SENT
       │   ▲                │  ├───► FAILED     the node or the rune refused it
       │   └── not sent ────┘  └───► UNKNOWN    it may have been sent; at least once: it waits again
       ├──► EXPIRED
       └──► CANCELLED

An entry is SENDING from before it is written to the node until its outcome is stored. Whoever finds it so after a
restart knows that it may have been sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, unique
from typing import NamedTuple

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import Message, NodeId, message_type


@unique
class State(Enum):
    """The state of an entry. The numbers are stored."""

    WAITING_FOR_PEER = 1
    """It will be sent when the peer is connected."""
    SENDING = 2
    """It is being written to the node; the outcome is not stored yet."""
    SENT = 3
    """The node has queued it for the peer."""
    EXPIRED = 4
    """It was not sent in time."""
    CANCELLED = 5
    """A caller has cancelled it before it was sent."""
    FAILED = 6
    """It cannot be sent; the reason says why. Nothing was sent."""
    UNKNOWN = 7
    """It may or may not have been sent, and is not sent again."""

    @property
    def is_final(self) -> bool:
        """Whether it never changes again."""
        return self.value > State.SENDING.value


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to put into the outbox."""

    peer_id: NodeId
    message: Message
    lifetime: float
    """Seconds after which it expires."""
    key: str = ""
    """The caller's idempotency key; empty: none."""
    at_least_once: bool = False
    """After an unknown outcome it is sent again. Otherwise it is sent at most once."""
    expires_ns: int = 0
    """The time after which it is not sent, in nanoseconds since 1970, UTC; 0: when its lifetime has passed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the outbox. Times are in nanoseconds since 1970, UTC."""

    id: str
    """Opaque: it says which outbox, and which entry of it."""
    peer_id: bytes
    message: bytes
    state: State
    reason: str
    """The name of a reason, for FAILED and UNKNOWN; else empty."""
    key: str
    caller: str
    """The name of whoever enqueued it."""
    at_least_once: bool
    is_direct: bool
    """It was sent by a call with an idempotency key, and never waited."""
    attempts: int
    """How often it was written to the node, or was about to be."""
    created_ns: int
    changed_ns: int
    """When it came into its state."""
    expires_ns: int
    """When it expires, about; 0 for what was sent directly."""


class Waiting(NamedTuple):
    """A message that waits for its peer."""

    entry_id: str
    message: Message
    caller: str
    credential: str
    """What the caller showed, as `access` wrote it for this purpose. It is a secret."""
    at_least_once: bool

    def __repr__(self) -> str:
        return f"Waiting(entry_id={self.entry_id})"


class Outcome(NamedTuple):
    """What became of an attempt to send."""

    entry_id: str
    state: State
    """WAITING_FOR_PEER if nothing was sent, and it is tried again."""
    reason: str = ""


class Ending(NamedTuple):
    """An entry has come to its end."""

    number: int
    """Endings are numbered in their order."""
    entry_id: str
    peer_id: bytes
    message_type: int
    state: State
    reason: str
    key: str
    time_ns: int


def arrival_of(ending: Ending, node_id: bytes) -> Arrival:
    """Make the event that tells of an ending. Its id stays the same, so that it is stored once."""
    fields = {
        "id": ending.entry_id,
        "state": ending.state.value,
        "reason": ending.reason,
        "key": ending.key,
    }
    content = ending.message_type.to_bytes(2, "big") + json.dumps(fields).encode()
    return Arrival(
        Kind.OUTBOX, ending.time_ns, ending.peer_id, content, 0, node_id, f"outbox/{ending.entry_id}"
    )


def ending_of(arrival: Arrival) -> Ending:
    """Read an event that `arrival_of` has made.

    Raises:
        ValueError: it is not as it was made.
    """
    try:
        fields = json.loads(arrival.message[2:])
        texts = [fields["id"], fields["reason"], fields["key"]]
        state = State(fields["state"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"an event of the outbox has no {error}") from None
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("an event of the outbox has a field that is not text")
    entry_id, reason, key = texts
    return Ending(
        0, entry_id, arrival.peer_id, message_type(arrival.message), state, reason, key, arrival.time_ns
    )
