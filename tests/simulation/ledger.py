"""What has happened to each message, as seen from outside the gateway, and what has to hold for it.

The ledger learns what is in the file from the file itself, right before each commit, and never asks the gateway.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import apsw

from custommsg_server.domain.events import Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Batch, Event

MESSAGE, INTERRUPTION = Kind.MESSAGE.value, Kind.INTERRUPTION.value


class Fate(Enum):
    """What has become of a message."""

    SENT = "sent"
    """lightningd has it, or it is on its way to the gateway, or lightningd has dropped it."""
    IGNORED = "ignored"
    REFUSED = "refused"
    WAITING = "waiting"
    """The inbox has it, and has not answered."""
    LOST = "lost"
    STORED = "stored"
    FORGOTTEN = "forgotten"
    """It was in the memory of a gateway that was killed."""


@dataclass(slots=True)
class Sent:
    """A message that a peer has sent."""

    peer_id: bytes
    message: bytes
    is_wanted: bool
    before: int
    """How many wanted messages the peer has sent before."""
    fate: Fate = Fate.SENT


class Row(NamedTuple):
    """An event as it is in the file."""

    kind: int
    peer_id: bytes
    message: bytes
    lost: int

    def passes(self, wanted: Filter) -> bool:
        """Whether a filter wants it; written apart from the gateway's."""
        if wanted.peer_ids is not None and self.peer_id and self.peer_id not in wanted.peer_ids:
            return False
        if self.kind == MESSAGE:
            return wanted.types is None or int.from_bytes(self.message[:2], "big") in wanted.types
        return self.kind == INTERRUPTION or wanted.peer_events


_ROWS = """
    SELECT e.sequence, e.kind, p.peer_id, e.message, e.lost FROM events e LEFT JOIN peers p ON p.id = e.peer
    WHERE e.sequence > ?
"""


def read_rows(connection: apsw.Connection, after: int = 0) -> dict[int, Row]:
    """Read events from the file."""
    return {row[0]: Row(*row[1:]) for row in connection.execute(_ROWS, (after,))}


def read_consumers(connection: apsw.Connection) -> dict[str, int]:
    """Read the positions of named consumers from the file."""
    return dict(connection.execute("SELECT name, position FROM consumers"))  # type: ignore[arg-type]


def read_size(connection: apsw.Connection) -> int:
    """Return the bytes of the pages in use."""
    pages, free, size = (
        int(str(connection.pragma(f"{name}"))) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


@dataclass
class File:
    """What the file holds."""

    rows: dict[int, Row] = field(default_factory=dict)
    floor: int = 0
    consumers: dict[str, int] = field(default_factory=dict)
    moved_to: dict[int, int] = field(default_factory=dict)
    """For events that were evicted: the sequence number of the interruption that stands for them."""

    latest: int = 0
    """The newest event that was ever in it."""

    def copy(self) -> File:
        """Return a copy that does not change with it."""
        return File(dict(self.rows), self.floor, dict(self.consumers), dict(self.moved_to), self.latest)


class Ledger:
    """Keeps account of everything.

    Args:
        broken: called with a text when something does not hold.
    """

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken
        self.messages: list[Sent] = []
        self.log: dict[int, Row] = {}
        """All events that were ever committed, as they were then."""
        self.file = File()
        self.latest = 0
        self._sent_by: Counter[bytes] = Counter()
        self._wanted_of: defaultdict[bytes, list[int]] = defaultdict(list)
        self._newest_of: dict[bytes, tuple[int, int]] = {}
        """The newest stored message of each peer: how many it has sent before, and the sequence number."""
        self._told_at: dict[bytes, int] = {}
        """The sequence number of the newest interruption of each peer, and of all."""
        # Since the gateway has started:
        self.told = 0
        self.counts: Counter[Fate] = Counter()
        self.is_stopping = False
        """Whether it stops: then what has failed and may have taken effect is lost as far as is known."""

    def started(self) -> None:
        """Take note that a gateway has started, which knows nothing of what was in the memory of the last."""
        for one in self.messages:
            if one.fate is Fate.WAITING:
                one.fate = Fate.FORGOTTEN
        self.told, self.is_stopping = 0, False
        self.counts.clear()

    # Messages.

    def sent(self, peer_id: bytes, message_type: int, size: int, is_wanted: bool) -> int:
        """Make a message of a peer; return its number."""
        number = len(self.messages)
        message = message_type.to_bytes(2, "big") + number.to_bytes(4, "big") + bytes(size)
        self.messages.append(Sent(peer_id, message, is_wanted, len(self._wanted_of[peer_id])))
        if is_wanted:
            self._wanted_of[peer_id].append(number)
        return number

    def became(self, numbers: Iterable[int], fate: Fate) -> None:
        """Take note of what has become of messages."""
        for number in numbers:
            one = self.messages[number]
            self.counts[fate] += 1
            if one.fate is Fate.STORED:
                if fate is Fate.LOST and not self.is_stopping:
                    self._broken(f"message {number} is said to be lost, and is stored")
                continue
            if fate is Fate.STORED:
                self._broken(f"message {number} is said to be stored, and is not committed")
            one.fate = fate

    def answered(self, number: int) -> None:
        """Take note that lightningd got the answer for a message: it has to be safe, or to be missed."""
        fate = self.messages[number].fate
        if fate in (Fate.SENT, Fate.WAITING, Fate.FORGOTTEN):
            self._broken(f"message {number} was answered while its fate is {fate.value!r}")

    # The file.

    def committed(self, new: dict[int, Row]) -> None:
        """Take note of events that were appended."""
        for sequence, row in new.items():
            if sequence <= self.latest:
                self._broken(f"sequence number {sequence} comes after {self.latest}")
            self.latest = self.file.latest = sequence
            self.log[sequence] = self.file.rows[sequence] = row
            if row.kind == INTERRUPTION:
                self._told_at[row.peer_id] = sequence
                self.told += row.lost
            elif row.kind == MESSAGE:
                self._stored(sequence, row)

    def _stored(self, sequence: int, row: Row) -> None:
        number = int.from_bytes(row.message[2:6], "big")
        one = self.messages[number]
        if (one.peer_id, one.message) != (row.peer_id, row.message):
            self._broken(f"message {number} was changed")
        if one.fate is Fate.STORED:
            self._broken(f"message {number} was stored twice, now as {sequence}")
        elif one.fate is not Fate.WAITING:
            self._broken(f"message {number} was stored, and its fate was {one.fate.value!r}")
        one.fate = Fate.STORED
        before, at = self._newest_of.get(row.peer_id, (-1, 0))
        if one.before <= before:
            self._broken(f"message {number} was stored after a later one of its peer")
        told_at = max(self._told_at.get(row.peer_id, 0), self._told_at.get(b"", 0))
        if told_at <= at:
            for missing in self._wanted_of[row.peer_id][before + 1 : one.before]:
                if self.messages[missing].fate is not Fate.REFUSED:
                    self._broken(f"message {missing} is missing before {number}, and no interruption says so")
        self._newest_of[row.peer_id] = one.before, sequence

    def deleted_oldest(self, rows: dict[int, Row], floor: int, is_too_large: bool) -> None:
        """Take note that the oldest events were deleted."""
        gone = self.file.rows.keys() - rows.keys()
        if gone and not is_too_large:
            self._broken("events were deleted though there was room for them")
        if gone and (floor != max(gone) or min(rows, default=floor + 1) <= floor):
            self._broken(f"{len(gone)} events were deleted, and the floor is {floor}")
        if floor < self.file.floor:
            self._broken(f"the floor went back from {self.file.floor} to {floor}")
        self.file.rows, self.file.floor = rows, floor

    def evicted(self, rows: dict[int, Row]) -> None:
        """Take note that events of single peers were replaced by interruptions."""
        before = self.file.rows
        replaced = {sequence for sequence, row in rows.items() if before.get(sequence) != row}
        gone = before.keys() - rows.keys() | replaced
        of_peer: defaultdict[bytes, list[int]] = defaultdict(list)
        for sequence in sorted(gone):
            of_peer[before[sequence].peer_id].append(sequence)
        for peer_id, sequences in of_peer.items():
            last, row = sequences[-1], rows.get(sequences[-1])
            lost = sum((before[one].kind == MESSAGE) + before[one].lost for one in sequences)
            if not peer_id or row != Row(INTERRUPTION, peer_id, b"", lost):
                self._broken(f"{len(sequences)} events were evicted, and {row} stands for {lost} messages")
            self.file.moved_to.update(dict.fromkeys(sequences, last))
        self.file.rows = rows

    def moved(self, consumers: dict[str, int], deleted: str | None = None) -> None:
        """Take note of the positions of named consumers."""
        for name, position in self.file.consumers.items():
            if name != deleted and consumers.get(name, -1) < position:
                self._broken(f"consumer {name} went back from {position} to {consumers.get(name)}")
        if max(consumers.values(), default=0) > self.latest:
            self._broken(f"a consumer is at {max(consumers.values())}, after the newest event")
        self.file.consumers = consumers

    def lost_power(self, file: File) -> None:
        """Take note of what a power failure has left."""
        if file.latest != self.latest:
            self._broken(
                f"a power failure has taken events back: {self.latest} was stored, {file.latest} is left"
            )
        self.file = file

    def found(self, rows: dict[int, Row], floor: int, consumers: dict[str, int]) -> None:
        """Compare with the file of a gateway that has stopped."""
        if (rows, floor, consumers) != (self.file.rows, self.file.floor, self.file.consumers):
            differ = {
                one for one in rows.keys() | self.file.rows.keys() if rows.get(one) != self.file.rows.get(one)
            }
            self._broken(
                f"the file is not as it was committed: events {sorted(differ)[:9]}, floor {floor} for"
                f" {self.file.floor}, consumers {consumers} for {self.file.consumers}"
            )


@dataclass
class Reading:
    """What a subscriber has seen since it started at a place, and what it was not told of yet."""

    ledger: Ledger
    broken: Callable[[str], None]
    wanted: Filter
    place: int
    owed: dict[bytes, int] = field(default_factory=dict)
    """By peer: the newest event that was evicted before the subscriber could see it."""

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left that it wants."""
        log = self.ledger.log
        rest = range(self.place + 1, self.ledger.latest + 1)
        return not any(log[one].passes(self.wanted) for one in rest if one in log)

    def take(self, batch: Batch) -> list[int]:
        """Check a batch; return the sequence numbers of its events."""
        sequences = [place_of(event.position) for event in batch.events]
        end, last = place_of(batch.position), self.place
        if end < last:
            self.broken(f"a subscriber's position went back from {last} to {end}")
        given: dict[int, Event] = {}
        for sequence, event in zip(sequences, batch.events, strict=True):
            if not last < sequence <= end:
                self.broken(f"a subscriber got event {sequence} after {last}, in a batch up to {end}")
            last = sequence
            given[sequence] = event
        for sequence in range(self.place + 1, end + 1):
            self._check(sequence, given.pop(sequence, None))
        self.place = end
        moved_to = self.ledger.file.moved_to
        for peer_id, missed in self.owed.items():
            told_at = moved_to.get(missed, end + 1)
            while told_at in moved_to and moved_to[told_at] > told_at:
                told_at = moved_to[told_at]
            if told_at <= end:
                self.broken(
                    f"a subscriber is at {end}, and was not told that {missed} of {peer_id.hex()[:8]} was evicted"
                )
        return sequences

    def _check(self, sequence: int, event: Event | None) -> None:
        ledger = self.ledger
        original = ledger.log.get(sequence)
        if event is not None:
            one = event.arrival
            row = Row(one.kind.value, one.peer_id, one.message, one.lost)
            if original is None:
                self.broken(f"a subscriber got event {sequence}, which was never committed")
                return
            is_evicted = row.kind == INTERRUPTION and row.peer_id == original.peer_id and row.lost > 0
            if row != original and not is_evicted:
                self.broken(f"a subscriber got event {sequence} as {row}, and it is {original}")
            if not row.passes(self.wanted):
                self.broken(f"a subscriber got event {sequence}, which it does not want")
            if row.kind == INTERRUPTION:
                if row.peer_id:
                    self.owed.pop(row.peer_id, None)
                else:
                    self.owed.clear()
        elif original is not None and original.passes(self.wanted):
            if sequence not in ledger.file.moved_to:
                self.broken(f"a subscriber was not given event {sequence}")
            self.owed[original.peer_id] = sequence


def place_of(position: str) -> int:
    """Return the sequence number of a position."""
    return int(position.rpartition("-")[2])
