"""What the inbox keeps, and everything that it needs from a store. No technology in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol


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
    """Messages from before this point may be missing: the gateway was away, or the store failed."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that happened, before it has a place in the inbox."""

    kind: Kind
    time_ns: int
    """When it reached the gateway, in nanoseconds since 1970, UTC."""
    node_id: bytes = b""
    """The peer; empty for an interruption."""
    message: bytes = b""
    """The whole message with its 2-byte type; empty for other kinds."""
    lost: int = 0
    """For an interruption: how many messages are known to be lost; 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, at its place in the inbox."""

    sequence: int
    """Its place: 1, 2, 3, ...; never reused."""
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class Range:
    """What an inbox holds now."""

    earliest: int
    """The sequence number of the oldest event that is kept; `latest + 1` if none is."""
    latest: int
    """The sequence number of the newest event that was ever stored; 0 if none was."""
    count: int
    """How many events are kept."""
    size: int
    """Bytes that they take in the store."""
    oldest_ns: int
    """When the oldest arrived, in nanoseconds since 1970, UTC; 0 if none is kept."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A subscriber's name and its position, kept for it."""

    name: str
    position: int
    """The sequence number of the last event that it has dealt with."""
    updated_ns: int
    """When it last said so, in nanoseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are kept."""

    max_age: float
    """Seconds."""
    max_size: int
    """Bytes in the store."""


class StoreError(Exception):
    """The store cannot do it now: a full disk, a corrupt file. The message says what and where."""


class Store(Protocol):
    """Keeps events in order, durably. Its methods block; each may be called from any thread."""

    @property
    def inbox_id(self) -> str:
        """A random name, made with the store: positions of another store mean nothing here."""

    def append(self, arrivals: Sequence[Arrival]) -> list[Event]:
        """Store arrivals, all or none, in this order; return when they are safe on the disk.

        Their sequence numbers follow each other without a gap. With no arrivals, find out whether the store
        could take some. Raises StoreError.
        """

    def read(self, after: int, limit: int, max_size: int) -> list[Event]:
        """Return the first events whose sequence number is greater than `after`, in order, without a gap.

        At most `limit`, and at most `max_size` bytes of messages, but one event at least if there is one.
        The first may be further than `after + 1`: what was between is forgotten. Raises StoreError.
        """

    def range(self) -> Range:
        """Return what is held. Raises StoreError."""

    def prune(self, retention: Retention, now_ns: int, limit: int) -> int:
        """Forget some events that retention no longer allows, the oldest first; return how many.

        At most `limit`, and no more than takes a moment: call it again until it returns 0. Raises StoreError.
        """

    def consumers(self) -> list[Consumer]:
        """Return the named consumers. Raises StoreError."""

    def advance(self, name: str, position: int, now_ns: int) -> int:
        """Set a consumer's position, if that is further than where it is; make it if it is new.

        Returns its position now. Raises StoreError.
        """

    def forget(self, name: str) -> bool:
        """Forget a consumer; return whether there was one. Raises StoreError."""

    def close(self) -> None:
        """Let go of the store."""
