"""Everything that the core needs from an inbox. No technology in here.

An engine keeps events in one order, durably, and may have other writers than this process: an event that another
one has appended appears among the others. A position is opaque to everybody but the engine that made it: it says
which inbox it belongs to and a place in it. Gaps between the places of two events are normal.
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
    """With what is appended from now on."""
    BEGINNING = "beginning"
    """With the oldest event that is kept now."""


class Event(NamedTuple):
    """Something that happened, at its place in the inbox."""

    position: Position
    arrival: Arrival
    """What happened. An engine need not keep its `id`."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Batch:
    """Some events in order, and how far they lead. An engine may give one batch to many subscribers."""

    events: Sequence[Event]
    """The events that pass the filter; none if this only says where the subscription is."""
    position: Position
    """Every event up to this position was given out or did not pass the filter."""
    is_last: bool = False
    """For `Inbox.read`: nothing was stored after it."""
    derived: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was made of it, once for all who got this batch; each maker uses a key of its own."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an inbox holds now."""

    earliest: Position
    """The position before the oldest event that is kept: everything comes after it."""
    latest: Position
    """The position of the newest event."""
    count: int
    """About how many events are kept."""
    size: int
    """Bytes that they take."""
    oldest_ns: int
    """When the oldest of them arrived, in nanoseconds since 1970, UTC; 0 if none is kept."""
    largest_share: float = 0.0
    """The part of it that one peer has, at most; 0 if the engine does not know."""
    evicted: int = 0
    """Messages that were deleted since the start to make room, because their peer held most."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A named subscriber whose position is kept."""

    name: str
    position: Position
    """Everything up to it is acknowledged."""
    updated_ns: int
    """When it last acknowledged something, in nanoseconds since 1970, UTC."""
    lag: int
    """About how many events have been stored since its position."""
    is_expired: bool
    """Whether some of them were deleted."""


class InboxError(Exception):
    """The inbox cannot do this now: a full disk, a damaged file. The message says what is wrong and what to do."""


class PositionError(Exception):
    """It is not possible to start, or to go on, at a position; the subclass says why."""


class PositionInvalid(PositionError):  # noqa: N818 -- what is the case, as the contract calls it
    """The text is not a position."""


class PositionOfOtherInbox(PositionError):  # noqa: N818 -- as above
    """The position belongs to another inbox."""


class PositionExpired(PositionError):  # noqa: N818 -- as above
    """Events after the position were deleted by the retention.

    Args:
        earliest: the position before the oldest event that is kept.
    """

    def __init__(self, earliest: Position) -> None:
        super().__init__(f"events after this position were deleted; what is kept starts after {earliest}")
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
    """An endless iterator of batches: what is stored, then what is appended, with no gap between the two.

    It is safe to cancel while it waits, and to go on with it. It ends when the inbox is closed. A batch without
    events comes at least each heartbeat, and after many events that do not pass the filter.
    """

    @property
    def position(self) -> Position:
        """Where it starts, then the position of the last batch."""

    def __aiter__(self) -> Subscription: ...

    async def __anext__(self) -> Batch:
        """Wait for the next batch. Raises PositionExpired or InboxError."""

    async def aclose(self) -> None:
        """Let go of it."""


class Consumers(Protocol):
    """The named consumers of an inbox."""

    async def open(self, name: str, start: Start | Position) -> Position:
        """Return the position of a consumer; make it, where `start` says, if there is no consumer of that name.

        Raises:
            PositionError: for a new one, as `Inbox.subscribe`.
            InboxError: it could not be read or made.
        """

    async def ack(self, name: str, position: Position) -> Position | None:
        """Move a consumer on to a position, if that is further; return where it is now; None: no such consumer.

        Raises:
            PositionInvalid, PositionOfOtherInbox, PositionNotReached, InboxError: it was not moved.
        """

    async def list(self) -> list[Consumer]:
        """Return all of them, by name. Raises InboxError."""

    async def delete(self, name: str) -> bool:
        """Delete one; return whether there was one. Raises InboxError."""


class Inbox(Protocol):
    """Keeps what arrives, and gives it out. Its methods never block the event loop."""

    @property
    def consumers(self) -> Consumers:
        """The named consumers."""

    def append(self, arrivals: Sequence[Arrival]) -> Awaitable[Sequence[Position]]:
        """Store arrivals, in this order and after all that were appended before: the call itself fixes the order.

        An arrival whose id was appended not long ago is not stored again, and gets the same position. The
        awaitable is done when they are safe; to let go of it takes nothing back.

        While storing fails they wait, up to a bound of the engine, and are stored in order when it works again.

        Raises:
            InboxError: from the awaitable: they are lost. An INTERRUPTION stands in their place when storing works
                again.
        """

    async def subscribe(self, wanted: Filter, start: Start | Position) -> Subscription:
        """Subscribe; where it starts is fixed when this returns.

        Raises:
            PositionError, InboxError: it cannot start there, or not now.
        """

    async def read(self, wanted: Filter, after: Position | None, limit: int) -> Batch:
        """Return at most `limit` stored events that pass the filter, after a position or from the beginning.

        A batch may have fewer, even none, before the last one: an engine bounds its size and the time it takes.

        Raises:
            PositionError, InboxError: as `subscribe`.
        """

    async def bounds(self) -> Bounds:
        """Return what is held. Raises InboxError."""

    def keep_more_of(self, peer_ids: Collection[bytes]) -> None:
        """Keep more of these peers than of others when there is no room; who was named before counts no more.

        Where events of single peers are deleted to make room, an INTERRUPTION of the peer stands in their place, for
        those who have not passed it.
        """

    @property
    def error(self) -> str | None:
        """What is wrong with the inbox now, in words for a person; None if nothing is."""

    def watch(self, watcher: Callable[[str | None], None]) -> None:
        """Call `watcher` with `error`, now and whenever it changes."""

    async def close(self) -> None:
        """Store what waits, end all subscriptions, and let go of the inbox."""
