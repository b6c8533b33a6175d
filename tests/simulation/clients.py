"""Subscribers, with and without a name: they read, stall, leave, and go on where they were, in the next life, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from custommsg_server.core.mailbox import SubscribeRequest
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Batch, Position, Start
from simulation.ledger import Reading, place_of
from simulation.node import PEERS
from support.callers import caller

if TYPE_CHECKING:
    from simulation.gateway import Life
    from simulation.world import World

FILTERS: Final = (
    Filter(),
    Filter(peer_events=True),
    Filter(peer_ids=frozenset(PEERS[:2]), peer_events=True),
    Filter(types=TypeSet([range(37913, 37914)])),
    Filter(frozenset(PEERS[1:4]), TypeSet([range(32768, 40000)])),
)


class Client:
    """A subscriber.

    Args:
        world: it lives in.
        number: of it.
        wanted: its filter.
        consumer: its name, if it acknowledges.
    """

    def __init__(self, world: World, number: int, wanted: Filter, consumer: str | None) -> None:
        self._world = world
        self.number = number
        self._wanted = wanted
        self.consumer = consumer
        self.reading: Reading | None = None
        """What it has seen; None: it has not begun."""
        self._start: Start | Position | None = None
        """Where to start next; None: where its name stands."""
        self._position: Position | None = None
        """Of the last batch, or of an event within it."""
        self.acked = -1
        """What the gateway said last about where the consumer stands."""
        self._asked = -1
        """The furthest that was acknowledged, or where it was opened."""
        self._acked_once: Position | None = None
        self.task: asyncio.Task[None] | None = None
        self._goes_on = asyncio.Event()
        self.is_stalled = False

    @property
    def is_away(self) -> bool:
        return self.task is None or self.task.done()

    def subscribe(self, life: Life) -> None:
        """Subscribe, where it was if it knows that."""
        some = self._world.some
        if self.reading is None and self._start is None:
            self._start = some.choice([Start.LIVE, Start.BEGINNING])
        elif self.consumer is None or (self._start is None and some.random() < 0.2):
            self._start = self._start or self._position
        self._goes_on = asyncio.Event()
        self.stall(False)
        self.task = life.loop.create_task(self._serve(life))

    def stall(self, is_stalled: bool) -> None:
        """Read no more, or go on."""
        self.is_stalled = is_stalled
        self._goes_on.clear() if is_stalled else self._goes_on.set()

    def leave(self) -> None:
        """Hang up; of the last batch it may have seen some events only."""
        if self.task is not None:
            self.task.cancel()

    def forget(self) -> None:
        """Have its consumer deleted, by somebody else: its name begins anew."""
        self.acked = self._asked = -1
        self.leave()
        self.reading = self._position = self._start = self._acked_once = None

    def lost_power(self, position: int | None) -> None:
        """Take note of where a power failure has left its name."""
        if self.consumer is not None:
            self.acked = min(self.acked, -1 if position is None else position)

    async def _serve(self, life: Life) -> None:
        note = self._world.note
        request = SubscribeRequest(self._wanted, self._start, self.consumer)
        try:
            subscription = await life.mailbox.subscribe(caller(key=f"client {self.number}"), request)
        except RelayError as error:
            self._was_refused(error, self._start)
            return
        self._begin(place_of(subscription.position), subscription.position)
        try:
            async for batch in subscription:
                self._take(batch)
                if self.consumer is not None and self._world.some.random() < self._world.plan.ack_rate:
                    await self._acknowledge(life, batch)
                await self._goes_on.wait()
        except RelayError as error:
            self._was_refused(error, subscription.position)
        finally:
            note(f"client {self.number} ends")
            await subscription.aclose()

    def _begin(self, place: int, position: Position) -> None:
        world, before = self._world, self.reading
        world.note(f"client {self.number} starts after", place)
        if isinstance(self._start, str):
            if place != place_of(self._start):
                world.broken(f"a subscription after {place_of(self._start)} started after {place}")
        elif before is not None and self.consumer is not None and not self.acked <= place <= self._asked:
            world.broken(
                f"{self.consumer} resumes after {place}, and is between {self.acked} and {self._asked}"
            )
        if place > world.ledger.latest:
            world.broken(f"a subscription starts after {place}, beyond the newest event")
        self._asked = max(self._asked, place)
        owed = {} if before is None else before.owed
        self.reading = Reading(world.ledger, world.broken, self._wanted, place, owed)
        self._position, self._start = position, None

    def _take(self, batch: Batch) -> None:
        assert self.reading is not None
        before = self.reading.place
        sequences = self.reading.take(batch)
        if batch.events or self.reading.place > before:
            self._world.note(f"client {self.number} gets", *sequences, "up to", self.reading.place)
        self._position = batch.position
        if batch.events and self._world.some.random() < 0.1:
            # It will remember this one if it leaves now: what comes after it, it has not seen.
            self._position = self._world.some.choice(batch.events).position

    async def _acknowledge(self, life: Life, batch: Batch) -> None:
        assert self.consumer is not None
        some = self._world.some
        position = some.choice([batch.position, *[event.position for event in batch.events[-3:]]])
        if self._acked_once is not None and some.random() < 0.2:
            position = self._acked_once  # as one does whose acknowledgements overtake each other
        elif self._acked_once is None or some.random() < 0.3:
            self._acked_once = position
        place, before = place_of(position), self.acked
        self._asked = max(self._asked, place)
        try:
            now = place_of(await life.mailbox.acknowledge(caller(), self.consumer, position))
        except RelayError as error:
            self._world.note(f"client {self.number} cannot acknowledge:", error.reason.name)
            if error.reason is not Reason.INBOX_UNAVAILABLE and before >= 0:
                self._world.broken(f"{position} cannot be acknowledged: {error.message}")
            return
        self._world.note(f"client {self.number} acknowledges", place, "and is at", now)
        if not max(place, before) <= now <= self._asked:
            self._world.broken(
                f"consumer {self.consumer} is at {now} after an acknowledgement of {place}, and was at {before}"
            )
        self.acked = now

    def _was_refused(self, error: RelayError, start: Start | Position | None) -> None:
        world = self._world
        world.note(f"client {self.number} is refused:", error.reason.name)
        if error.reason is Reason.POSITION_EXPIRED:
            floor = world.ledger.file.floor
            if isinstance(start, str) and place_of(start) >= floor:
                world.broken(f"a position expired, {start}, and what was deleted ends at {floor}")
            if self.reading is not None:
                self.reading.owed.clear()
            earliest = Position(error.metadata["earliest"])
            if place_of(earliest) > floor:
                world.broken(
                    f"{earliest} is told as the earliest position, and what was deleted ends at {floor}"
                )
            self._start = earliest
            self._position = earliest
        elif error.reason is not Reason.INBOX_UNAVAILABLE:
            world.broken(f"a subscription was refused: {error.reason.name} {error.message}")
