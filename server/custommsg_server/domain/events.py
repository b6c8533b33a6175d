"""Events between the node and its peers, before they have a position in the inbox."""

from __future__ import annotations

from enum import Enum, unique
from typing import Final, NamedTuple


@unique
class Kind(Enum):
    """The kind of an event."""

    MESSAGE = 1
    """A peer sent a message."""
    CONNECTED = 2
    """A peer connected."""
    DISCONNECTED = 3
    """A peer disconnected."""
    INTERRUPTION = 4
    """Messages before this event may be missing: the gateway was not attached, or could not store them."""
    OUTBOX = 5
    """An entry of the outbox has ended; the content is that of `domain.outbox`, and begins with the message's type."""


MESSAGE: Final = Kind.MESSAGE
"""For code that runs for each message: looking up a member of an enum takes ten times as long as a name."""


ARRIVAL_OVERHEAD: Final = 400
"""The approximate memory of an arrival in bytes, without its message."""


class Arrival(NamedTuple):
    """An event. It is a tuple because several are made for each message, and tuples are fast to make."""

    kind: Kind
    time_ns: int
    """When it reached the gateway, in nanoseconds since 1970, UTC."""
    peer_id: bytes = b""
    """The peer, 33 bytes; empty for an interruption that concerns all peers."""
    message: bytes = b""
    """The whole message with its 2-byte type; for OUTBOX what is said of the entry; empty for other kinds."""
    lost: int = 0
    """For an interruption: how many messages are known to be missing; 0 if that is not known."""
    node_id: bytes = b""
    """Our node, 33 bytes; empty if it is not known yet."""
    id: str = ""
    """A unique id: an event that is appended several times is stored once. Empty: no id."""
