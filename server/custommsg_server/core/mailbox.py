"""Receiving: from the inbox to subscribers, each of which gets the events that it may see."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from custommsg_server.core.memory import MemoryBudget, weight
from custommsg_server.core.uses import (
    LIST,
    SUBSCRIBE,
    check_deadline,
    event_use,
    permitted,
    refuse_rated,
    require_any,
    subscribe_use,
)
from custommsg_server.domain.caller import Caller, Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import (
    Batch,
    Bounds,
    Consumer,
    Event,
    Inbox,
    InboxError,
    Position,
    PositionError,
    PositionExpired,
    PositionNotReached,
    PositionOfOtherInbox,
    Start,
    Subscription,
)

MAX_CANDIDATES: Final = 64
"""Pairs of peer and type that are checked one by one when a subscription starts. A wider one starts without this check;
each event is checked in any case."""
_MAX_USES: Final = 1000
"""Uses that a subscription caches, one for each peer and type."""

_Key = tuple[bytes, bytes]
"""What permission depends on: the peer of an event, and its type as the first two bytes of the message."""
_NOBODY: Final[_Key] = (b"", b"")
"""The key of an interruption that concerns all peers."""


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """The request of a subscriber."""

    filter: Filter
    start: Start | Position | None = None
    """Where to start; None: after the acknowledged position of the consumer, or live if there is none."""
    consumer: str | None = None
    """The name of the consumer whose position is stored. It resumes there, unless `start` is a position."""


@dataclass(frozen=True, slots=True)
class State:
    """The current state of the inbox."""

    bounds: Bounds | None
    """Its content; None if it cannot be read."""
    attached: bool
    """Whether lightningd is attached."""
    error: str | None
    """The error, as text for people; None if there is none."""


class Mailbox:
    """Serves the events of the inbox; `attached` returns whether lightningd is attached.

    The batches that its subscribers have not taken yet count in `memory`.
    """

    def __init__(self, inbox: Inbox, attached: Callable[[], bool], memory: MemoryBudget) -> None:
        self._inbox = inbox
        self._attached = attached
        self._memory = memory

    async def prove(self, caller: Caller) -> None:
        """Return if the caller's credential is valid: checked before its filter is parsed, which takes time.

        Raises:
            RelayError: NO_CREDENTIAL, or the node cannot answer now.
        """
        await caller.prove(SUBSCRIBE, check_deadline())

    async def subscribe(self, caller: Caller, request: SubscribeRequest) -> MailboxSubscription:
        """Register a subscriber: it gets all events that match its filter and are stored from now on.

        Raises:
            RelayError: NOT_PERMITTED, a reason about the position, or INBOX_UNAVAILABLE.
        """
        await _may_begin(caller, request.filter, SUBSCRIBE, request.consumer)
        start = Start.LIVE if request.start is None else request.start
        with _reasons("after" if isinstance(start, str) else ""):
            if request.consumer is not None:
                acknowledged = await self._inbox.consumers.open(request.consumer, start)
                start = acknowledged if isinstance(start, Start) else start
            subscription = await self._inbox.subscribe(request.filter, start)
        return MailboxSubscription(caller, subscription, request.consumer, self._memory)

    async def list_events(self, caller: Caller, wanted: Filter, after: Position | None, limit: int) -> Batch:
        """Return a page of the stored events that the caller may see.

        Args:
            caller: who asks.
            wanted: which events.
            after: the position to start after; None: the beginning.
            limit: how many at most. There may be fewer before the last page, even none.

        Raises:
            RelayError: NOT_PERMITTED, a reason about the position, or INBOX_UNAVAILABLE.
        """
        await _may_begin(caller, wanted, LIST, None)
        with _reasons("after"):
            batch = await self._inbox.read(wanted, after, limit)
        return await _Judge(caller, LIST, None).allowed(batch)

    async def acknowledge(self, caller: Caller, consumer: str, position: Position) -> Position:
        """Store the position up to which a consumer has acknowledged; return its position now.

        Raises:
            RelayError: NOT_PERMITTED, CONSUMER_UNKNOWN, a reason about the position, or INBOX_UNAVAILABLE.
        """
        await caller.require(Use("ackcustommsg", {"consumer": consumer}), check_deadline())
        with _reasons("position"):
            now = await self._inbox.consumers.ack(consumer, position)
        if now is None:
            raise _unknown_consumer()
        return now

    async def delete_consumer(self, caller: Caller, consumer: str) -> None:
        """Delete a consumer. Raises RelayError: NOT_PERMITTED, CONSUMER_UNKNOWN or INBOX_UNAVAILABLE."""
        await caller.require(Use("deleteconsumer", {"consumer": consumer}), check_deadline())
        with _reasons():
            if not await self._inbox.consumers.delete(consumer):
                raise _unknown_consumer()

    async def consumers(self, caller: Caller) -> list[Consumer]:
        """List the named consumers, by name. Raises RelayError: NOT_PERMITTED or INBOX_UNAVAILABLE."""
        await caller.require(Use("listconsumers", {}), check_deadline())
        with _reasons():
            return await self._inbox.consumers.list()

    async def state(self, caller: Caller) -> State:
        """Return the state of the inbox, even if the inbox cannot be read. Raises RelayError: NOT_PERMITTED."""
        await caller.require(Use("getinbox", {}), check_deadline())
        bounds, error = None, self._inbox.error
        try:
            bounds = await self._inbox.bounds()
        except InboxError as failure:
            error = error or str(failure)
        return State(bounds, self._attached(), error)


class MailboxSubscription:
    """An endless iterator of batches of the events that the caller may see; made by `Mailbox.subscribe`.

    A cancelled `anext` loses nothing: iteration can continue. It ends when the inbox is closed. The memory of a batch
    counts as the caller's until the next one is asked for, and nothing is read while the caller has no room.
    """

    def __init__(
        self, caller: Caller, subscription: Subscription, consumer: str | None, memory: MemoryBudget
    ) -> None:
        self._key = caller.key
        self._memory = memory
        self._held = 0
        self._subscription = subscription
        self._judge = _Judge(caller, SUBSCRIBE, consumer)
        self._position = subscription.position
        self._unjudged: Batch | None = None

    @property
    def position(self) -> Position:
        """Where it starts, then the position of the last batch."""
        return self._position

    def __aiter__(self) -> MailboxSubscription:
        return self

    async def __anext__(self) -> Batch:
        """Wait for the next batch.

        Raises:
            RelayError: POSITION_EXPIRED, INBOX_UNAVAILABLE, or the caller's credential is no longer valid.
        """
        if self._unjudged is None:
            self._release()
            await self._memory.room(self._key)
            try:
                self._unjudged = await anext(self._subscription)
            except (PositionError, InboxError) as error:
                raise _reason(error) from None
        if not self._held:
            # Again, since many that waited may have got the same batch; nothing happens between this and `hold`.
            await self._memory.room(self._key)
            self._held = _weight(self._unjudged)
            self._memory.hold(self._key, "subscriptions", self._held)
        batch = await self._judge.allowed(self._unjudged)
        self._unjudged = None
        self._position = batch.position
        return batch

    async def aclose(self) -> None:
        """End the subscription."""
        self._release()
        await self._subscription.aclose()

    def _release(self) -> None:
        if self._held:
            self._memory.release(self._key, "subscriptions", self._held)
            self._held = 0


def _weight(batch: Batch) -> int:
    """Return the bytes of memory that a batch takes; computed once for all its subscribers."""
    known: int | None = batch.derived.get(_weight)
    if known is None:
        known = weight(len(batch.events), sum(len(event.arrival.message) for event in batch.events))
        batch.derived[_weight] = known
    return known


class _Judge:
    """Removes from batches the events that a caller may not see; `method` is SUBSCRIBE or LIST."""

    def __init__(self, caller: Caller, method: str, consumer: str | None) -> None:
        self._caller = caller
        self._method = method
        self._consumer = consumer
        self._uses: dict[_Key, Use] = {}

    async def allowed(self, batch: Batch) -> Batch:
        """Return the events of a batch that the caller may see; its position stays.

        Interruptions are always included. Their peer is removed if the caller may not see this peer.
        """
        if self._caller.permit.is_unrestricted:
            return batch
        arrivals = {(a.peer_id, a.message[:2]): a for _, a in batch.events}
        arrivals.pop(_NOBODY, None)
        if not arrivals:
            return batch
        uses = [self._use(key, arrival) for key, arrival in arrivals.items()]
        # If the check fails, or the rune is no longer valid, this raises: nothing is delivered, and nothing skipped.
        verdicts = dict(zip(arrivals, await permitted(self._caller, uses), strict=True))
        if all(verdicts.values()):
            return batch
        return Batch(list(_seen(batch.events, verdicts)), batch.position, batch.is_last)

    def _use(self, key: _Key, arrival: Arrival) -> Use:
        use = self._uses.get(key)
        if use is None:
            if len(self._uses) >= _MAX_USES:
                self._uses.clear()
            use = self._uses[key] = event_use(arrival, self._consumer, self._method)
        return use


def _seen(events: Sequence[Event], verdicts: dict[_Key, bool]) -> Iterator[Event]:
    for event in events:
        arrival = event.arrival
        if verdicts.get((arrival.peer_id, arrival.message[:2]), True):
            yield event
        elif arrival.kind is Kind.INTERRUPTION:
            yield Event(event.position, arrival._replace(peer_id=b""))


async def _may_begin(caller: Caller, wanted: Filter, method: str, consumer: str | None) -> None:
    """Return if the caller may see any events. Raises RelayError: it may see none, or the node cannot answer now."""
    refuse_rated(caller, "subscribe or list events: each peer and type would be a use")
    await require_any(caller, [subscribe_use(*pair, consumer, method) for pair in _candidates(wanted)])


def _candidates(wanted: Filter) -> list[tuple[bytes | None, int | None]]:
    peer_ids: Sequence[bytes | None] = sorted(wanted.peer_ids or ())[: MAX_CANDIDATES + 1] or [None]
    types: Sequence[int | None] = [None]
    if wanted.types and len(wanted.types) <= MAX_CANDIDATES:
        types = list(wanted.types)
    pairs = list(itertools.product(peer_ids, types))
    return pairs if len(pairs) <= MAX_CANDIDATES else [(None, None)]


@contextmanager
def _reasons(field: str = "") -> Iterator[None]:
    """Turn errors of the inbox into RelayErrors.

    Args:
        field: the field of the request that has the position.
    """
    try:
        yield
    except (PositionError, InboxError) as error:
        raise _reason(error, field) from None


def _reason(error: PositionError | InboxError, field: str = "") -> RelayError:
    match error:
        case InboxError():
            return RelayError(
                Reason.INBOX_UNAVAILABLE,
                f"The inbox cannot be used now: {error}. Stored events are not lost. Try again later.",
                retry_after=1.0,
            )
        case PositionExpired():
            return RelayError(
                Reason.POSITION_EXPIRED,
                "The retention has deleted events after this position. Start after"
                f" {error.earliest} to continue with the events that are left; some are missing.",
                field=field,
                metadata={"earliest": error.earliest},
            )
        case PositionNotReached():
            return RelayError(
                Reason.POSITION_NOT_REACHED,
                "This position is after the newest event of this inbox. Start live, or after"
                f" {error.latest}, the position of the newest event.",
                field=field,
                metadata={"latest": error.latest},
            )
        case PositionOfOtherInbox():
            return RelayError(
                Reason.POSITION_OF_OTHER_INBOX,
                "This position belongs to another inbox: this gateway has a new one."
                " Start from the beginning, or live; events may be missing.",
                field=field,
            )
        case _:
            return RelayError(
                Reason.INVALID_POSITION,
                "This text is not a position. Use the position of an event or a response, unchanged.",
                field=field,
            )


def _unknown_consumer() -> RelayError:
    return RelayError(
        Reason.CONSUMER_UNKNOWN,
        "There is no consumer of this name. Subscribe with the name first; ListConsumers lists the existing ones.",
        field="consumer",
    )
