"""What happens between the node and its peers, before it has a place in the inbox."""

from __future__ import annotations

from enum import Enum, unique
from typing import Final, NamedTuple


@unique
class Kind(Enum):
    """What happened."""

    MESSAGE = 1
    """A peer sent a message."""
    CONNECTED = 2
    """A peer connected."""
    DISCONNECTED = 3
    """A peer disconnected."""
    INTERRUPTION = 4
    """Messages from before this event may be missing: the gateway was away, or could not store."""


MESSAGE: Final = Kind.MESSAGE
"""For what runs for each message: looking up a member of an enum takes ten times as long as a name."""


class Arrival(NamedTuple):
    """Something that happened. A tuple, since several are made of each message, and tuples are made quickly."""

    kind: Kind
    time_ns: int
    """When it reached the gateway, in nanoseconds since 1970, UTC."""
    peer_id: bytes = b""
    """The peer, 33 bytes; empty for an interruption that concerns all peers."""
    message: bytes = b""
    """The whole message with its 2-byte type; empty for other kinds."""
    lost: int = 0
    """For an interruption: how many messages are known to be missing; 0 if that is not known."""
    node_id: bytes = b""
    """Our node, 33 bytes; empty if it is not known yet."""
    id: str = ""
    """Names it among all arrivals, so that it is stored once however often it is appended; empty: no such name."""
