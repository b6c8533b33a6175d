"""The thread that stores what arrives: all that waits in one commit, and what if the store fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from custommsg_server.inbox.port import Arrival, Event, Kind, Range, Retention, Store, StoreError

log = structlog.get_logger()

_COMMIT_SIZE: Final = 4 << 20
"""Bytes that go into one commit, about."""
_PRUNE_EVENTS: Final = 1000
"""Events that are forgotten at once, at most."""
_PRUNE_TURNS: Final = 4
"""How often in a row, while arrivals wait: enough to forget more than arrives."""
_PRUNE_AFTER: Final = 1 << 20
"""Bytes stored after which the size of the inbox is looked at, at the latest."""


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How the writer behaves. Times are in seconds."""

    prune_interval: float = 10.0
    """How often the age of what is kept is looked at."""
    backoff_min: float = 0.1
    backoff_max: float = 5.0


@dataclass(frozen=True, slots=True)
class Pending:
    """Arrivals that wait to be stored."""

    arrivals: Sequence[Arrival]
    size: int
    """Bytes of memory that they take."""
    is_stored: asyncio.Future[bool]


@dataclass(slots=True)
class Report:
    """What one turn of the writer has to tell."""

    error: str | None
    """What is wrong with the store now, in words for a person; None if nothing is."""
    done: list[Pending] = field(default_factory=list)
    is_stored: bool = False
    """Whether `done` was stored."""
    lost: int = 0
    """Messages that were lost in this turn."""
    events: list[Event] = field(default_factory=list)
    """What was committed."""
    opened: Store | None = None
    """The store, if it was opened in this turn."""
    held: Range | None = None
    """What the store holds, if it was opened or something was forgotten."""


class Writer:
    """Stores what it is given, in order, until it is stopped.

    While the store fails, what is given is lost; the loss is counted, and an INTERRUPTION in front of what is
    stored next tells of it.

    Args:
        open_store: opens the store; it is called again, with backoff, while it raises StoreError.
        retention: how long events are kept.
        options: how to behave.
        tell: is called after each turn, on the writer's thread.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        retention: Retention,
        options: WriterOptions,
        tell: Callable[[Report], None],
    ) -> None:
        self._open_store = open_store
        self._retention = retention
        self._options = options
        self._tell = tell
        self._store: Store | None = None
        self._waiting: deque[Pending] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._write_error: str | None = "it is not open yet"
        self._prune_error: str | None = None
        self._retry_at = 0.0
        self._delay = options.backoff_min
        self._prune_at = 0.0
        self._unpruned = 0
        self._has_pruned = False
        self._lost = 0
        self._is_interrupted = False
        self._thread = threading.Thread(target=self._run, name="inbox-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; its first report comes when the store was opened, or could not be."""
        self._thread.start()

    def put(self, pending: Pending) -> None:
        """Hand over arrivals."""
        with self._changed:
            self._waiting.append(pending)
            self._changed.notify()

    def stop(self) -> None:
        """Store what waits, and end. The store stays open."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._next()
            report = Report(error=None, done=batch)
            self._write(report, is_last)
            self._prune(report)
            report.error = self._write_error or self._prune_error
            self._tell(report)

    def _next(self) -> tuple[list[Pending], bool]:
        """Wait until there is something to do; return what to store, and whether it is the last."""
        with self._changed:
            while not self._waiting and not self._is_stopping:
                left = (self._retry_at if self._write_error else self._prune_at) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch, room = [], _COMMIT_SIZE
            while self._waiting and room > 0:
                batch.append(self._waiting.popleft())
                room -= batch[-1].size
            return batch, self._is_stopping and not self._waiting

    def _write(self, report: Report, is_last: bool) -> None:
        arrivals = [arrival for pending in report.done for arrival in pending.arrivals]
        now = time.monotonic()
        if self._write_error is None and not arrivals:
            return
        if self._write_error is not None and now < self._retry_at and not is_last:
            self._lose(report, arrivals)
            return
        try:
            report.events = self._append(report, arrivals)
        except Exception as error:
            self._write_error = _reason(error)
            self._retry_at = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, self._options.backoff_max)
            self._lose(report, arrivals)
        else:
            report.is_stored = True
            self._unpruned += sum(pending.size for pending in report.done)
            self._write_error = None
            self._delay = self._options.backoff_min
            self._lost, self._is_interrupted = 0, False

    def _append(self, report: Report, arrivals: list[Arrival]) -> list[Event]:
        if self._store is None:
            store = self._open_store()
            try:
                report.held = store.range()
            except BaseException:
                store.close()
                raise
            self._store = report.opened = store
        if self._is_interrupted:
            arrivals = [Arrival(Kind.INTERRUPTION, time.time_ns(), lost=self._lost), *arrivals]
        try:
            return self._store.append(arrivals)
        except StoreError:
            # What is no longer kept may be just the room that is missing.
            if self._store.prune(self._retention, time.time_ns(), _PRUNE_EVENTS):
                self._has_pruned, self._prune_at = True, 0.0
            return self._store.append(arrivals)

    def _lose(self, report: Report, arrivals: list[Arrival]) -> None:
        if arrivals:
            report.lost = sum(arrival.kind is Kind.MESSAGE for arrival in arrivals)
            self._lost += report.lost
            self._is_interrupted = True

    def _prune(self, report: Report) -> None:
        now = time.monotonic()
        enough = min(_PRUNE_AFTER, self._retention.max_size // 16)
        if self._store is None or (now < self._prune_at and self._unpruned <= enough):
            return
        try:
            self._prune_some(self._store)
            if self._has_pruned:
                report.held = self._store.range()
                self._has_pruned = False
        except Exception as error:
            self._prune_error = _reason(error)
            self._prune_at = now + self._options.prune_interval
        else:
            self._prune_error = None

    def _prune_some(self, store: Store) -> None:
        """Forget what is no longer kept, or some of it while arrivals wait."""
        turns = 0
        while store.prune(self._retention, time.time_ns(), _PRUNE_EVENTS):
            self._has_pruned = True
            turns += 1
            if self._is_stopping or (self._waiting and turns >= _PRUNE_TURNS):
                self._prune_at = 0.0  # there is more to do
                return
        self._prune_at = time.monotonic() + self._options.prune_interval
        self._unpruned = 0


def _reason(error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    # A bug. It must not end the thread: the hook would never be answered again.
    log.error("unexpected error in the inbox's writer", exc_info=error)
    return f"unexpected {type(error).__name__}; see the log"
