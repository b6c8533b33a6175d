"""What a subscription yields: plain values, without protobuf. See Event in custommsg.proto."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Message:
    """A peer sent a custom message to the node."""

    sequence: int
    """Its place in the gateway's inbox: counts up from 1 and is never used again."""
    time: datetime
    """When it reached the gateway; with its time zone, UTC."""
    node_id: bytes
    """The peer's node id, 33 bytes."""
    type: int
    """The message's type, 0 to 65,535."""
    payload: bytes
    """What follows the type, 0 to 65,533 bytes, as the peer sent it."""

    @property
    def msg(self) -> bytes:
        """The whole message: its type in 2 bytes, big-endian, then the payload."""
        return self.type.to_bytes(2, "big") + self.payload

    @property
    def node_id_hex(self) -> str:
        """The peer's node id as 66 hex digits."""
        return self.node_id.hex()


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer connected to the node, or the node to it."""

    sequence: int
    """Its place in the gateway's inbox."""
    time: datetime
    """When the gateway heard of it; with its time zone, UTC."""
    node_id: bytes
    """The peer's node id, 33 bytes."""

    @property
    def node_id_hex(self) -> str:
        """The peer's node id as 66 hex digits."""
        return self.node_id.hex()


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """A peer is gone."""

    sequence: int
    """Its place in the gateway's inbox."""
    time: datetime
    """When the gateway heard of it; with its time zone, UTC."""
    node_id: bytes
    """The peer's node id, 33 bytes."""

    @property
    def node_id_hex(self) -> str:
        """The peer's node id as 66 hex digits."""
        return self.node_id.hex()


@dataclass(frozen=True, slots=True)
class Interruption:
    """Messages from before this point may be missing: the gateway was away, or could not store."""

    sequence: int
    """Its place in the gateway's inbox."""
    time: datetime
    """When it was noted; with its time zone, UTC."""
    lost: int
    """How many messages are known to be lost; 0 if that is not known."""


Event: TypeAlias = Message | PeerConnected | PeerDisconnected | Interruption
"""Whatever can stand in the inbox."""
