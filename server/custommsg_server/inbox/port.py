"""Everything that the core needs from an inbox. No technology in here.

An engine stores events durably, in one order. Other processes may write to it as well: their events appear among the
others. A position is opaque to everybody but the engine that made it: it names an inbox and a place in it. Gaps between
the places of two events are normal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any, NamedTuple, NewType, Protocol

from custommsg_server.domain.events import Arrival
from custommsg_server.inbox.filter import Filter

Position = NewType("Position", str)
"""A place in an inbox, as text without spaces, at most 100 characters."""


@unique
class Start(Enum):
    """Where to start, if not after a given position."""

    LIVE = "live"
    """Only events that are appended from now on."""
    BEGINNING = "beginning"
    """From the oldest stored event."""


class Event(NamedTuple):
    """An event with its position in the inbox."""

    position: Position
    arrival: Arrival
    """The event. An engine need not store its `id`."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Batch:
    """Some events in order, and the position that they reach. An engine may return one batch to many subscribers."""

    events: Sequence[Event]
    """The events that match the filter; empty if the batch only reports the position."""
    position: Position
    """All events up to this position were returned, or do not match the filter."""
    is_last: bool = False
    """For `Inbox.read`: no events are stored after this batch."""
    derived: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)
    """Values that were derived from it, such as encodings: once for all subscribers that receive it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The content of an inbox."""

    earliest: Position
    """The position before the oldest stored event."""
    latest: Position
    """The position of the newest event."""
    count: int
    """The approximate number of stored events."""
    size: int
    """Their size in bytes."""
    oldest_ns: int
    """When the oldest of them arrived, in nanoseconds since 1970, UTC; 0 if the inbox is empty."""
    largest_share: float = 0.0
    """The largest part of the inbox that one peer takes; 0 if the engine does not know it."""
    evicted: int = 0
    """Messages that were deleted since the start to free space, because their peer took the most."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A named subscriber whose position is stored."""

    name: str
    position: Position
    """All events up to it are acknowledged."""
    updated_ns: int
    """When it last acknowledged something, in nanoseconds since 1970, UTC."""
    lag: int
    """The approximate number of events after its position."""
    is_expired: bool
    """Whether some of these events were deleted."""


class InboxError(Exception):
    """The inbox cannot be used now, e.g. because the disk is full. The message says what is wrong and what to do."""


class PositionError(Exception):
    """A position cannot be used; the subclass says why."""


class PositionInvalid(PositionError):  # noqa: N818 -- named like the reason in the contract
    """The text is not a position."""


class PositionOfOtherInbox(PositionError):  # noqa: N818 -- as above
    """The position belongs to another inbox."""


class PositionExpired(PositionError):  # noqa: N818 -- as above
    """Events after the position were deleted by the retention.

    Args:
        earliest: the position before the oldest stored event.
    """

    def __init__(self, earliest: Position) -> None:
        super().__init__(f"events after this position were deleted; the stored events start after {earliest}")
        self.earliest = earliest


class PositionNotReached(PositionError):  # noqa: N818 -- as above
    """The position is after the newest event.

    Args:
        latest: the position of the newest event.
    """

    def __init__(self, latest: Position) -> None:
        super().__init__(f"this position is after the newest event, which is at {latest}")
        self.latest = latest


class Subscription(Protocol):
    """An endless iterator of batches: first the stored events, then the new ones, with no gap between them.

    A cancelled `anext` loses nothing: iteration can continue. It ends when the inbox is closed. There is a batch
    without events at each heartbeat, and after many events that do not match the filter.
    """

    @property
    def position(self) -> Position:
        """Where it starts, then the position of the last batch."""

    def __aiter__(self) -> Subscription: ...

    async def __anext__(self) -> Batch:
        """Wait for the next batch. Raises PositionExpired or InboxError."""

    async def aclose(self) -> None:
        """End the subscription."""


class Consumers(Protocol):
    """The named consumers of an inbox."""

    async def open(self, name: str, start: Start | Position) -> Position:
        """Return the position of a consumer; create it at `start` if it does not exist.

        Raises:
            PositionError: as `Inbox.subscribe`, if it is new.
            InboxError: it could not be read or created.
        """

    async def ack(self, name: str, position: Position) -> Position | None:
        """Advance a consumer, never back; return its position, or None if it does not exist.

        Raises:
            PositionInvalid, PositionOfOtherInbox, PositionNotReached, InboxError: it was not moved.
        """

    async def list(self) -> list[Consumer]:
        """Return all consumers, by name. Raises InboxError."""

    async def delete(self, name: str) -> bool:
        """Delete a consumer; return whether it existed. Raises InboxError."""


class Inbox(Protocol):
    """Stores events and serves them to subscribers. Its methods never block the event loop."""

    @property
    def consumers(self) -> Consumers:
        """The named consumers."""

    def append(self, arrivals: Sequence[Arrival]) -> Awaitable[Sequence[Position]]:
        """Store arrivals in the order of the calls; the awaitable is done when they are safe on the disk.

        An arrival whose id was appended recently is not stored again: it gets the same position. Cancelling the
        awaitable does not undo the append. While storing fails, arrivals wait, up to a limit of the engine, and are
        stored in order when it works again.

        Raises:
            InboxError: from the awaitable: the arrivals are lost. When storing works again, an INTERRUPTION is stored
                in their place.
        """

    async def subscribe(self, wanted: Filter, start: Start | Position) -> Subscription:
        """Subscribe; the start is fixed when this returns.

        Raises:
            PositionError, InboxError: the position or the inbox cannot be used.
        """

    async def read(self, wanted: Filter, after: Position | None, limit: int) -> Batch:
        """Return at most `limit` stored events that match the filter, after a position or from the beginning.

        A batch before the last one may have fewer events, or none: an engine limits its size and its time.

        Raises:
            PositionError, InboxError: as `subscribe`.
        """

    async def bounds(self) -> Bounds:
        """Return what the inbox contains. Raises InboxError."""

    def keep_more_of(self, peer_ids: Collection[bytes]) -> None:
        """Store more events of these peers than of others when space is short; replaces the previous list.

        If an engine deletes events of single peers, an INTERRUPTION of the peer takes their place, for subscribers
        that have not read them.
        """

    @property
    def error(self) -> str | None:
        """The current error, as text for people; None if there is none."""

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        """Call `watcher` with `error`, now and whenever it changes."""

    async def close(self) -> None:
        """Store what waits, end all subscriptions, and close the inbox."""
