"""What subscriptions and listings yield, as plain values without protobuf. See Event in custommsg.proto."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from custommsg.model import OutboxState


class _PeerId:
    """Adds the peer's node id as hex."""

    __slots__ = ()

    peer_id: bytes

    @property
    def peer_id_hex(self) -> str:
        """The peer's node id as 66 hex digits; empty if `peer_id` is."""
        return self.peer_id.hex()


@dataclass(frozen=True, slots=True)
class Message(_PeerId):
    """A peer sent a custom message to the node."""

    position: str
    """Its place in the inbox: where to resume, and what to acknowledge. Opaque: do not parse or compare it."""
    time: datetime
    """When it reached the gateway; with its time zone, UTC."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway did not know it yet."""
    peer_id: bytes
    """The peer's node id, 33 bytes."""
    type: int
    """The message's type, 0 to 65,535."""
    payload: bytes
    """What follows the type, 0 to 65,533 bytes, as the peer sent it."""

    @property
    def msg(self) -> bytes:
        """The whole message: its type as 2 bytes, big-endian, then the payload."""
        return self.type.to_bytes(2, "big") + self.payload


@dataclass(frozen=True, slots=True)
class PeerConnected(_PeerId):
    """A peer connected to the node, or the node to it."""

    position: str
    """Its place in the inbox."""
    time: datetime
    """When the gateway heard of it; with its time zone, UTC."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway did not know it yet."""
    peer_id: bytes
    """The peer's node id, 33 bytes."""


@dataclass(frozen=True, slots=True)
class PeerDisconnected(_PeerId):
    """A peer disconnected."""

    position: str
    """Its place in the inbox."""
    time: datetime
    """When the gateway heard of it; with its time zone, UTC."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway did not know it yet."""
    peer_id: bytes
    """The peer's node id, 33 bytes."""


@dataclass(frozen=True, slots=True)
class Interruption(_PeerId):
    """Messages from before this event may be missing.

    The gateway was away or could not store, or the peer sent more than its share of the inbox.
    """

    position: str
    """Its place in the inbox."""
    time: datetime
    """When it was noted; with its time zone, UTC."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway did not know it yet."""
    peer_id: bytes
    """The peer whose messages may be missing, 33 bytes; empty if it concerns all peers."""
    lost: int
    """How many messages are known to be missing; 0 if that is not known."""

    def __str__(self) -> str:
        """Say what it means, for people."""
        lost = f"{self.lost} are known to be lost" if self.lost else "how many is not known"
        if self.peer_id:
            return (
                f"Messages of peer {self.peer_id_hex} from before event {self.position} may be missing: it sent more"
                f" than its share of the inbox, or the gateway could not store them; {lost}."
            )
        return (
            f"Messages from before event {self.position} may be missing: the gateway was away or could not store them;"
            f" {lost}."
        )


@dataclass(frozen=True, slots=True)
class OutboxEntryEnded(_PeerId):
    """An entry of the outbox has come to its final state."""

    position: str
    """Its place in the inbox."""
    time: datetime
    """When it ended; with its time zone, UTC."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway did not know it yet."""
    peer_id: bytes
    """The peer to whom the message was to be sent, 33 bytes."""
    entry_id: str
    """The id of the entry."""
    idempotency_key: str
    """The key that its caller gave it; empty: none."""
    state: OutboxState
    """Its final state."""
    reason: str
    """Why it is FAILED or UNKNOWN, a name of `Reason`; else empty."""
    type: int
    """The type of the message."""


Event: TypeAlias = Message | PeerConnected | PeerDisconnected | Interruption | OutboxEntryEnded
"""Every kind of event."""
