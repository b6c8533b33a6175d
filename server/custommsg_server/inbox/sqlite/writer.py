"""The thread that stores arrivals, many in one commit, and retries when the store fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from custommsg_server.domain.events import ARRIVAL_OVERHEAD, Arrival, Kind
from custommsg_server.inbox.port import Event, InboxError, Position
from custommsg_server.inbox.sqlite.reading import Held
from custommsg_server.inbox.sqlite.retention import Evicted, Retention
from custommsg_server.inbox.sqlite.store import SqliteStore, Stored
from custommsg_server.storage.clock import AgeClock

log = structlog.get_logger()

_COMMIT_SIZE: Final = 4 << 20
"""The approximate size of one commit in bytes."""
_PRUNE_EVENTS: Final = 1000
"""The maximum number of events to delete in one transaction."""
_PRUNE_TURNS: Final = 4
"""The number of such transactions in a row while arrivals wait: enough to delete more than arrives."""
_PRUNE_AFTER: Final = 1 << 20
"""The number of stored bytes after which the size of the inbox is checked."""
_RECENT_IDS: Final = 20_000
"""The number of ids that are remembered, so that their arrivals are not stored again: some 4 MB."""


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """Options of the writer. Times are in seconds."""

    prune_interval: float = 10.0
    """How often the age of the stored events is checked."""
    backoff_min: float = 0.1
    """The delay before the first retry of a failed commit; doubled after each failure ..."""
    backoff_max: float = 5.0
    """... up to this."""
    max_waiting: int = 16 << 20
    """Bytes of memory for arrivals while the store fails; more arrivals are lost."""
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    """The monotonic clock, which measures the age of events."""
    wall_ns: Callable[[], int] = time.time_ns
    """The machine's clock."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Arrivals that wait to be stored."""

    arrivals: Sequence[Arrival]
    positions: asyncio.Future[Sequence[Position]] | None
    """Gets their positions, on the event loop's thread only. None: nobody waits for them."""
    size: int
    """Their approximate memory in bytes."""


@dataclass(slots=True)
class Report:
    """The results of one turn of the writer."""

    done: list[Pending]
    error: str | None = None
    """The current error of the store, as text for people; None if there is none."""
    positions: Sequence[Sequence[Position] | None] = ()
    """The positions for each of `done`; None: it is lost."""
    lost: int = 0
    """Messages that were lost in this turn."""
    stored: Stored | None = None
    """The committed events."""
    evicted: list[Evicted] = field(default_factory=list)
    """The events that were deleted after that to free space."""
    opened: SqliteStore | None = None
    """The store, if it was opened in this turn."""
    held: Held | None = None
    """The content of the store, if it was opened or something was deleted."""
    ended_by: BaseException | None = None
    """The error that has ended the writer's thread, which is a bug. Then this is the last report."""


class Writer:
    """Stores arrivals in order, until it is stopped.

    While the store fails, arrivals wait and the writer tries again. It retries exactly the batch that failed, so that
    the store can find out whether the commit took effect. When too many arrivals wait, new ones are lost until the
    store works again; then one INTERRUPTION with their number is stored after those that waited.

    Args:
        open_store: opens the store; called again, with backoff, while it raises InboxError.
        retention: how long events are stored.
        options: its options.
        tell: called with a report after each turn, on the writer's thread.
    """

    def __init__(
        self,
        open_store: Callable[[], SqliteStore],
        retention: Retention,
        options: WriterOptions,
        tell: Callable[[Report], None],
    ) -> None:
        self._open_store = open_store
        self._retention = retention
        self._options = options
        self._tell = tell
        self._store: SqliteStore | None = None
        self._age_clock: AgeClock | None = None
        self.favored = "[]"
        """The peers with channels, as a JSON list of node ids; more of their events are stored."""
        self._changed = threading.Condition()
        self._waiting: deque[Pending] = deque()
        self._waiting_size = 0
        self._failed: list[Pending] = []
        """The batch that could not be stored, for the next try."""
        self._is_stopping = False
        self._recent = RecentIds(_RECENT_IDS)
        self._write_error: str | None = "it is not open yet"
        self._prune_error: str | None = None
        self._retry_at = 0.0
        self._delay = options.backoff_min
        self._prune_at = 0.0
        self._prune_turns = max(_PRUNE_TURNS, 16 * _COMMIT_SIZE // max(1, retention.max_size))
        self._unpruned = 0
        self._has_pruned = False
        self._kept: int | None = None
        """While arrivals are being lost: how many of the waiting ones will be stored."""
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="inbox-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; its first report says whether the store could be opened."""
        self._thread.start()

    def put(self, arrivals: Sequence[Arrival], positions: asyncio.Future[Sequence[Position]]) -> None:
        """Add arrivals; the report about them contains the future."""
        size = sum([len(arrival.message) for arrival in arrivals]) + ARRIVAL_OVERHEAD * len(arrivals)
        with self._changed:
            self._waiting.append(Pending(arrivals, positions, size))
            self._waiting_size += size
            self._changed.notify()

    def stop(self) -> None:
        """Store what waits, then end the thread. The store stays open."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    @property
    def due_in(self) -> float:
        """Seconds until the next turn, unless arrivals come earlier; 0: now."""
        if self._is_stopping:
            return 0.0
        if self._write_error is None:
            return 0.0 if self._waiting else max(0.0, self._prune_at - time.monotonic())
        return 0.0 if self._is_too_much else max(0.0, self._retry_at - time.monotonic())

    def turn(self) -> bool:
        """Store arrivals, delete old events, and report; return whether this was the last turn."""
        report, is_last = Report([]), False
        try:
            with self._changed:
                is_due = self._is_stopping or self._write_error is None or self._retry_at <= time.monotonic()
                if is_due:
                    report.done = self._batch()
            if is_due:
                self._write(report)
            if self._write_error is not None:
                self._lose(report)
            self._prune(report)
            report.error = self._write_error or self._prune_error
            with self._changed:
                is_last = self._is_stopping and not self._waiting and not self._failed
            self._tell(report)
        except BaseException as error:
            # Report all arrivals that this thread will not store, so that nobody waits for them forever.
            with self._changed:
                left = [*report.done, *self._failed, *self._waiting]
            why = f"the inbox's writer has ended because of a bug ({type(error).__name__})"
            self._tell(Report(left, why, [None] * len(left), ended_by=error))
            return True
        return is_last

    def _run(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                while (left := self.due_in) > 0:
                    self._changed.wait(left)
            is_last = self.turn()

    def _batch(self) -> list[Pending]:
        """Return the batch that failed, or else a new one of the first arrivals that wait."""
        if self._failed:
            batch, self._failed = self._failed, []
            return batch
        most = len(self._waiting) if self._kept is None else self._kept
        batch, size = [], 0
        # Not larger than what may wait, so that a failed batch, which may have taken effect, is not dropped.
        enough = min(_COMMIT_SIZE, self._options.max_waiting)
        while len(batch) < most and (not batch or size + self._waiting[0].size <= enough):
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        if self._kept is not None:
            self._kept -= len(batch)
        return batch

    @property
    def _is_too_much(self) -> bool:
        """Whether so much waits that arrivals are lost if they cannot be stored now."""
        return self._waiting_size > self._options.max_waiting or (
            self._kept is not None and len(self._waiting) > self._kept
        )

    def _write(self, report: Report) -> None:
        arrivals = [arrival for pending in report.done for arrival in pending.arrivals]
        fresh = self._recent.without_known(arrivals)
        events: Sequence[Event] = ()
        if fresh or self._write_error is not None:
            try:
                report.stored = self._append(report, fresh)
            except Exception as error:
                self._write_error = _reason(error)
                self._retry_at = time.monotonic() + self._delay
                self._delay = min(self._delay * 2, self._options.backoff_max)
                self._failed, report.done = report.done, []
                return
            events = report.stored.events
        self._write_error = None
        self._delay = self._options.backoff_min
        report.positions = self._recent.positions_of(report.done, events)
        size = sum([pending.size for pending in report.done])
        self._unpruned += size
        with self._changed:
            self._waiting_size -= size
            if self._kept is not None:
                told = [Arrival(Kind.INTERRUPTION, time.time_ns(), lost=self._lost)]
                self._waiting.insert(self._kept, Pending(told, None, 0))
                self._kept, self._lost = None, 0

    def _append(self, report: Report, arrivals: list[Arrival]) -> Stored:
        if self._store is None:
            store = self._open_store()
            try:
                report.held = store.held()
                clock = store.age_clock(self._options.wall_ns(), self._options.monotonic_ns)
            except BaseException:
                store.close()
                raise
            self._store, self._age_clock, report.opened = store, clock, store
        try:
            return self._store.append(arrivals)
        except InboxError:
            # Perhaps the disk is full: delete events that are too old, then try again.
            if self._delete(report, self._store):
                self._prune_at = 0.0
            return self._store.append(arrivals)

    def _lose(self, report: Report) -> None:
        """Drop arrivals that exceed the limit, the newest first, or all of them when stopping; report them as lost."""
        with self._changed:
            most = -1 if self._is_stopping else self._options.max_waiting
            lost: list[Pending] = []
            for some in (self._waiting, self._failed):
                while some and (
                    self._waiting_size > most
                    or (some is self._waiting and self._kept is not None and len(some) > self._kept)
                ):
                    lost.append(some.pop())
                    self._waiting_size -= lost[-1].size
            lost.reverse()
            fresh = self._recent.without_known([one for pending in lost for one in pending.arrivals])
            if fresh:
                self._kept = len(self._waiting)
        report.done, report.positions = lost, self._recent.positions_of(lost, ())
        report.lost = sum(arrival.kind is Kind.MESSAGE for arrival in fresh)
        self._lost += report.lost + sum(arrival.lost for arrival in fresh)

    def _prune(self, report: Report) -> None:
        now = time.monotonic()
        enough = min(_PRUNE_AFTER, self._retention.max_size // 16)
        if self._store is None or (now < self._prune_at and self._unpruned <= enough):
            return
        try:
            self._prune_some(report, self._store)
            if self._has_pruned:
                report.held = self._store.held()
                self._has_pruned = False
        except Exception as error:
            self._prune_error = _reason(error)
            self._prune_at = now + self._options.prune_interval
        else:
            self._prune_error = None

    def _prune_some(self, report: Report, store: SqliteStore) -> None:
        """Delete all events that the retention does not allow, or only some of them while arrivals wait."""
        turns = 0
        while self._delete(report, store):
            turns += 1
            if self._is_stopping or (self._waiting and turns >= self._prune_turns):
                self._prune_at = 0.0  # there is more to do
                return
        self._prune_at = time.monotonic() + self._options.prune_interval
        self._unpruned = 0

    def _delete(self, report: Report, store: SqliteStore) -> bool:
        """Delete some of these events; return whether there were any."""
        assert self._age_clock is not None  # it comes with the store
        now, favored = self._age_clock.now(), self.favored
        known_ns = self._options.wall_ns() - self._age_clock.away
        count = store.prune(self._retention, now, _PRUNE_EVENTS, known_ns, favored)
        evicted = [] if count else store.evict(self._retention, _PRUNE_EVENTS, favored)
        report.evicted += evicted
        self._has_pruned = self._has_pruned or bool(count or evicted)
        return bool(count or evicted)


class RecentIds:
    """The positions of arrivals that were stored recently, by their ids.

    Args:
        most: the maximum number of ids; at least half as many are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._positions: dict[str, Position] = {}
        self._older: dict[str, Position] = {}

    def without_known(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Remove arrivals whose ids are remembered, and those whose id occurs earlier in the list."""
        if len(self._positions) > self._most // 2:
            self._positions, self._older = {}, self._positions
        ids = [arrival.id for arrival in arrivals if arrival.id]
        if (
            len(set(ids)) == len(ids)
            and self._positions.keys().isdisjoint(ids)
            and self._older.keys().isdisjoint(ids)
        ):
            return arrivals
        fresh, seen = [], set()
        for arrival in arrivals:
            if not arrival.id or (self._position(arrival.id) is None and arrival.id not in seen):
                fresh.append(arrival)
                seen.add(arrival.id)
        return fresh

    def positions_of(
        self, done: Sequence[Pending], events: Sequence[Event]
    ) -> list[Sequence[Position] | None]:
        """Return the positions for each of `done`; None if some of its arrivals are lost.

        Args:
            done: what was to be stored.
            events: the stored events: what `without_known` has left of it.
        """
        self._positions.update([(arrival.id, position) for position, arrival in events if arrival.id])
        result: list[Sequence[Position] | None] = []
        if sum([len(pending.arrivals) for pending in done]) == len(events):
            positions, at = [event.position for event in events], 0
            for pending in done:
                result.append(positions[at : at + len(pending.arrivals)])
                at += len(pending.arrivals)
            return result
        nameless = iter([event.position for event in events if not event.arrival.id])
        for pending in done:
            found = [self._position(one.id) if one.id else next(nameless, None) for one in pending.arrivals]
            known = [position for position in found if position is not None]
            result.append(known if len(known) == len(found) else None)
        return result

    def _position(self, arrival_id: str) -> Position | None:
        return self._positions.get(arrival_id) or self._older.get(arrival_id)


def _reason(error: Exception) -> str:
    if isinstance(error, InboxError):
        return str(error)
    # A bug. It must not end the thread, or hook calls would never be answered again.
    log.error("unexpected error in the inbox's writer", exc_info=error)
    return f"unexpected {type(error).__name__}, which is a bug; see the log, and report it"
