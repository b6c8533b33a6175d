"""The core's other half: what happens to a message on its way from a peer to those who subscribed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Consumer, Range, StoreError
from custommsg_server.inbox.position import PositionExpired, PositionUnknown, Start
from custommsg_server.inbox.sqlite.feed import Batch, Subscription
from custommsg_server.inbox.sqlite.inbox import Inbox


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber asks for."""

    filter: Filter
    start: Start | int
    consumer: str | None = None
    """The name under which its position is kept; then `start` matters only the first time."""
    inbox_id: str = ""
    """The inbox that the position is of; empty if the subscriber does not say."""


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """A named consumer, and how far behind it is."""

    consumer: Consumer
    lag: int
    """How many events have been stored since its position."""
    expired: bool
    """Whether some of them are no longer kept."""


@dataclass(frozen=True, slots=True)
class State:
    """The inbox as it is now."""

    inbox_id: str
    held: Range | None
    """What it holds; None if it cannot be read."""
    attached: bool
    """Whether lightningd hands messages over."""
    error: str | None


class Mailbox:
    """Serves what peers sent.

    Args:
        inbox: keeps it.
        attached: says whether lightningd hands messages over now.
    """

    def __init__(self, inbox: Inbox, attached: Callable[[], bool]) -> None:
        self._inbox = inbox
        self._attached = attached

    @property
    def inbox_id(self) -> str:
        """The random name of the inbox."""
        return self._inbox.inbox_id

    async def subscribe(self, wish: Wish) -> Subscription:
        """Register a subscriber: whatever is stored from now on will be given to it.

        Raises:
            RelayError: POSITION_EXPIRED or INBOX_UNAVAILABLE.
        """
        with _reasons():
            if wish.inbox_id and self.inbox_id and wish.inbox_id != self.inbox_id:
                raise _other_inbox(self._inbox.latest)
            start, known = wish.start, {}
            if wish.consumer is not None:
                known = {consumer.name: consumer for consumer in await self._inbox.consumers()}
                if wish.consumer in known:
                    start = known[wish.consumer].position
            subscription = self._inbox.subscribe(wish.filter, start)
            if wish.consumer is not None and wish.consumer not in known:
                # Made now, so that what arrives before the first acknowledgement is not missed after a reconnect.
                await self._inbox.advance(wish.consumer, subscription.position)
            return subscription

    async def batches(self, subscription: Subscription) -> AsyncIterator[Batch]:
        """Give out what a subscription has, until the inbox closes.

        Raises:
            RelayError: POSITION_EXPIRED or INBOX_UNAVAILABLE.
        """
        with _reasons():
            async for batch in subscription:
                yield batch

    async def acknowledge(self, consumer: str, sequence: int) -> int:
        """Store how far a consumer has come; return where it is now.

        Raises:
            RelayError: CONSUMER_UNKNOWN, POSITION_EXPIRED or INBOX_UNAVAILABLE.
        """
        with _reasons():
            if all(consumer != known.name for known in await self._inbox.consumers()):
                raise _unknown_consumer()
            return await self._inbox.advance(consumer, sequence)

    async def forget(self, consumer: str) -> None:
        """Forget a consumer.

        Raises:
            RelayError: CONSUMER_UNKNOWN or INBOX_UNAVAILABLE.
        """
        with _reasons():
            if not await self._inbox.forget(consumer):
                raise _unknown_consumer()

    async def consumers(self) -> list[ConsumerState]:
        """List the named consumers, by name.

        Raises:
            RelayError: INBOX_UNAVAILABLE.
        """
        with _reasons():
            held = await self._inbox.range()
            return [
                ConsumerState(one, held.latest - one.position, one.position < held.earliest - 1)
                for one in sorted(await self._inbox.consumers(), key=lambda one: one.name)
            ]

    async def state(self) -> State:
        """Return what the inbox holds; it answers even while the inbox cannot be read."""
        held, error = None, self._inbox.error
        try:
            held = await self._inbox.range()
        except StoreError as failure:
            error = error or str(failure)
        return State(self.inbox_id, held, self._attached(), error)


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what the inbox raises into reasons."""
    try:
        yield
    except PositionExpired as error:
        raise RelayError(
            Reason.POSITION_EXPIRED,
            f"The events after this position are no longer all kept: the oldest is {error.earliest}."
            f" Start after {error.earliest - 1} to go on with what is left, and know that events are missing.",
            metadata={"earliest": str(error.earliest)},
        ) from None
    except PositionUnknown as error:
        raise _other_inbox(error.latest) from None
    except StoreError as error:
        raise RelayError(
            Reason.INBOX_UNAVAILABLE,
            f"The inbox cannot be used now: {error}. Nothing that it took is lost; try again.",
            retry_after=1.0,
        ) from None


def _other_inbox(latest: int) -> RelayError:
    return RelayError(
        Reason.POSITION_EXPIRED,
        "This position belongs to another inbox: the gateway has got a new one since."
        " Start from the beginning, or live, and know that events may be missing.",
        metadata={"latest": str(latest)},
    )


def _unknown_consumer() -> RelayError:
    return RelayError(
        Reason.CONSUMER_UNKNOWN,
        "There is no consumer of this name. Subscribe with it first; ListConsumers shows those that there are.",
    )
