"""Everything that the core needs from an outbox. No technology in here.

An engine keeps entries durably, in the order in which they were enqueued. It decides nothing about sending: the core
asks for what waits for a peer, stores that it is about to be sent, and afterwards what became of it. When an outbox is
opened, what was about to be sent and has no outcome becomes UNKNOWN, or waits again if it is sent at least once.

Time is the engine's own: an entry expires when its lifetime has passed, whatever the machine's clock says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.outbox import Draft, Ending, Entry, Outcome, State, Waiting


class OutboxError(Exception):
    """The outbox cannot do this now: a full disk, a damaged file. The message says what is wrong and what to do.

    Args:
        is_unknown: it may have taken effect all the same.
    """

    def __init__(self, message: str, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_unknown = is_unknown


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait, and how long is kept what became of it. Sizes are in bytes."""

    peer_entries: int
    """Entries of one caller that may wait for one peer."""
    peer_size: int
    caller_entries: int
    """Entries of one caller that may wait."""
    caller_size: int
    keep_time: float
    """Seconds for which entries that have ended are kept, with their keys."""
    keep_entries: int
    """Entries of one caller that have ended and are kept, at most."""


class Enqueued(NamedTuple):
    """An entry that is stored."""

    entry_id: str
    state: State
    is_new: bool
    """False: an earlier call has enqueued it, with the same key."""


class Begun(NamedTuple):
    """A message with a key that is to be sent at once."""

    entry: Entry
    is_new: bool
    """It is to be sent now. Otherwise the entry says what is known of an earlier attempt."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to list; an empty set means all."""

    states: frozenset[State] = frozenset()
    peer_ids: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, oldest first."""

    entries: Sequence[Entry]
    next: str
    """The id to go on after; empty if this is the last page."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the outbox holds now."""

    waiting: int
    """Entries that wait or are being sent."""
    waiting_size: int
    """Bytes that they take."""
    ended: int
    """Entries that have ended and are kept."""
    oldest_ns: int
    """When the oldest of those that wait was enqueued, in nanoseconds since 1970, UTC; 0 if none waits."""


class Outbox(Protocol):
    """Keeps what is to be sent, and what became of it. Its methods never block the event loop.

    All but the properties raise OutboxError.
    """

    def enqueue(
        self, caller: str, credential: str, drafts: Sequence[Draft]
    ) -> Awaitable[Sequence[Enqueued | RelayError]]:
        """Store messages, in this order and after all that were enqueued before: the call itself fixes the order.

        The awaitable is done when they are safe. Each has an entry of its own, unless the caller has used its key
        before: then it is the entry of that time.

        Returns:
            For each its entry, or why it was not stored: OUTBOX_FULL, or IDEMPOTENCY_KEY_REUSED because another message
            has the key.
        """

    async def begin(self, caller: str, drafts: Sequence[Draft]) -> Sequence[Begun | RelayError]:
        """Store that messages are about to be sent directly; each has a key. See `Begun`.

        What was begun and has no outcome becomes UNKNOWN at the next start.
        """

    async def waiting(self, peer_id: bytes, after: str, most: int, size: int) -> Sequence[Waiting]:
        """Return what waits for a peer, in order.

        Args:
            peer_id: the peer.
            after: the id of an entry; what comes after it. Empty: from the first one.
            most: how many at most.
            size: bytes of messages at most, if that is not a single one.
        """

    async def attempt(self, entry_ids: Sequence[str]) -> Collection[str]:
        """Store that entries are about to be sent: they are SENDING when this returns.

        Returns:
            Those that may be sent now. The others were cancelled meanwhile, or are due to expire.
        """

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Store what became of attempts, or that what waits is not to be sent.

        What was to be sent directly, and was not sent, is forgotten with its key.
        """

    async def find(self, caller: str, *, entry_id: str = "", key: str = "") -> Entry | None:
        """Return an entry by its id, or a caller's by its key; None: there is none."""

    async def page(self, wanted: Wanted, after: str, most: int) -> Page:
        """Return entries after an id, or the first ones. A page may have fewer than `most`, even none."""

    async def cancel(self, entry_id: str) -> Entry | None:
        """Cancel an entry if it waits; return it as it is now. None: there is none."""

    async def waiting_for(self, after: bytes, most: int) -> Sequence[bytes]:
        """Return peers for whom something waits, by node id, after one."""

    async def endings(self, most: int) -> Sequence[Ending]:
        """Return the first endings that were not told yet, in order. What was sent directly has none."""

    async def told(self, number: int) -> None:
        """Store that all endings up to a number were told. It may be forgotten if the power fails."""

    async def tidy(self) -> bool:
        """Expire what is due, and delete what was kept for long enough; return whether there is more to do."""

    async def counts(self) -> Counts:
        """Return what is held."""

    def set(self, bounds: Bounds) -> None:
        """Apply other bounds from now on."""

    @property
    def error(self) -> str | None:
        """What is wrong with the outbox now, in words for a person; None if nothing is."""

    def watch_endings(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` whenever entries may have ended."""

    async def close(self) -> None:
        """Store what waits to be stored, and let go of the outbox."""
