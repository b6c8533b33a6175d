"""Records a run, and checks whether the promises were kept. Times are seconds of the monotonic clock."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Final

DISK_SETTLES: Final = 15.0
"""Seconds after the end of a full disk in which an interruption is counted as its consequence."""
LOST_WITH_NODE: Final = 2.0
"""Seconds before a kill of the node in which a queued message may be lost with it."""


@dataclass(slots=True)
class Outage:
    """A time without delivery: a kill, a full disk, a consumer that is disconnected."""

    kind: str
    begin: float
    since: float
    """Receiving works again when a message that the peer sent after this is delivered."""
    received: float = inf
    """When receiving worked again."""
    sent: float = inf
    """When sending worked again; only kills affect sending."""

    @property
    def is_kill(self) -> bool:
        """Whether a process was killed."""
        return self.kind in (KILL_GATEWAY, KILL_NODE)


KILL_GATEWAY: Final = "kill -9 of the gateway"
KILL_NODE: Final = "kill -9 of the node"
FULL_DISK: Final = "full disk"
CONSUMER_AWAY: Final = "consumer away"


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that the honest consumer got for the first time."""

    number: int
    time: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An interruption that the honest consumer got."""

    peer_id: bytes
    lost: int
    time: float


@dataclass(frozen=True, slots=True)
class Expired:
    """The honest consumer got POSITION_EXPIRED."""

    time: float


@dataclass(frozen=True, slots=True)
class Send:
    """One call of the honest sender: OK, or the reason of its failure."""

    begin: float
    end: float
    outcome: str


@dataclass(slots=True)
class Record:
    """Everything that was recorded."""

    peer_id: bytes = b""
    """The honest peer."""
    sent: dict[int, float] = field(default_factory=dict)
    """When the honest peer sent each number."""
    stream: list[Delivered | Interrupted | Expired] = field(default_factory=list)
    """What the honest consumer got, in order."""
    positions: dict[str, int] = field(default_factory=dict)
    redelivered: int = 0
    """Messages that were delivered again after a pause of the consumer, since they were not acknowledged."""
    called: dict[int, float] = field(default_factory=dict)
    """When the node called the hook for each number of the honest peer."""
    answered: list[int] = field(default_factory=list)
    """The numbers of the honest peer whose hook call was answered."""
    asked: list[tuple[float, float]] = field(default_factory=list)
    """From when to when the node itself was asked something, without the gateway."""
    sends: dict[int, Send] = field(default_factory=dict)
    heard: list[int] = field(default_factory=list)
    """The numbers that the honest sender's peer got."""
    outages: list[Outage] = field(default_factory=list)
    full: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of each time with a full disk."""
    attaches: list[float] = field(default_factory=list)
    """When lightningd had to attach again: starts of the gateway, and detaches in its log."""
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Other broken promises, as text."""

    def deliver(self, number: int, position: str, now: float) -> None:
        """Record a message that the consumer got."""
        if self.positions.get(position) == number:
            self.redelivered += 1
            return
        self.positions[position] = number
        self.stream.append(Delivered(number, now))
        for outage in self.outages:
            if outage.received == inf and outage.since <= self.sent.get(number, -inf):
                outage.received = now

    def end_send(self, number: int, send: Send) -> None:
        """Record a call of the sender."""
        self.sends[number] = send
        if send.outcome == "OK":
            for outage in self.outages:
                if outage.sent == inf and outage.begin <= send.begin:
                    outage.sent = send.end


@dataclass(frozen=True, slots=True)
class Invariant:
    """A promise, and how often it was broken."""

    name: str
    broken: int
    note: str = ""


def judge(record: Record) -> list[Invariant]:
    """Check all promises."""
    numbers = [one.number for one in record.stream if isinstance(one, Delivered)]
    lost = sorted(set(record.answered) - set(numbers))
    heard, outcomes = Counter(record.heard), record.sends
    refused = [n for n in heard if n in outcomes and outcomes[n].outcome not in ("OK", "OUTCOME_UNKNOWN")]
    unheard = [n for n, send in outcomes.items() if send.outcome == "OK" and n not in heard]
    return [
        Invariant("received: lost after the answer to the node", len(lost), _lost_note(record, lost)),
        Invariant("received: twice", len(numbers) - len(set(numbers))),
        Invariant("received: out of order", sum(b < a for a, b in itertools.pairwise(numbers))),
        Invariant("received: missing without an interruption", sum(_silent_gaps(record))),
        Invariant("interruptions without a cause", len(unexplained(record))),
        Invariant("sent: twice", sum(count - 1 for count in heard.values())),
        Invariant("sent: although the call failed", len(refused)),
        Invariant(
            "sent: lost without a kill of the node",
            sum(not _died_with_node(record, outcomes[n].end) for n in unheard),
            f"{len(unheard)} with a kill of the node" if unheard else "",
        ),
    ]


def _lost_note(record: Record, lost: list[int]) -> str:
    if not lost:
        return ""
    told = sum(_is_told(record, number) for number in lost)
    return f"of {len(record.answered):,}; {told} of them counted in an interruption, or expired"


def _is_told(record: Record, number: int) -> bool:
    """Return whether there is an interruption with a count, or POSITION_EXPIRED, at the place of a lost number."""
    between: list[Interrupted | Expired] = []
    for one in record.stream:
        if not isinstance(one, Delivered):
            between.append(one)
        elif one.number < number:
            between.clear()
        else:
            break
    return any(isinstance(one, Expired) or one.lost for one in between)


def _silent_gaps(record: Record) -> Iterable[int]:
    """Yield how many numbers are missing at each place without an interruption."""
    last, told = 0, False
    for one in record.stream:
        if isinstance(one, Interrupted):
            told |= one.peer_id in (b"", record.peer_id)
        elif isinstance(one, Expired):
            told = True
        else:
            if one.number > last + 1 and not told:
                yield one.number - last - 1
            last, told = max(last, one.number), False


def explain(record: Record) -> Counter[str]:
    """Count the interruptions by cause."""
    return Counter(reason for _, reason in _explained(record))


def unexplained(record: Record) -> list[Interrupted]:
    """Return the interruptions without a cause."""
    return [one for one, reason in _explained(record) if reason == UNEXPLAINED]


UNEXPLAINED: Final = "nothing explains it"
ATTACHED: Final = "lightningd attached again, after a kill or a detach"
REFUSED: Final = "another peer exceeded its budget"


def _explained(record: Record) -> Iterable[tuple[Interrupted, str]]:
    """Match interruptions to causes: each new attachment causes one, a full disk causes any number."""
    unused, causes = 0, sorted(record.attaches)
    for one in record.stream:
        if not isinstance(one, Interrupted):
            continue
        while causes and causes[0] <= one.time:
            causes.pop(0)
            unused += 1
        if one.peer_id and one.peer_id != record.peer_id:
            yield one, REFUSED
        elif not one.peer_id and not one.lost and unused:
            unused -= 1
            yield one, ATTACHED
        elif any(begin <= one.time <= end + DISK_SETTLES for begin, end in record.full):
            yield one, FULL_DISK
        else:
            yield one, UNEXPLAINED


def _died_with_node(record: Record, when: float) -> bool:
    return any(
        outage.kind == KILL_NODE and when <= outage.begin + 0.1 and outage.begin - when <= LOST_WITH_NODE
        for outage in record.outages
    )


ALONE: Final = "alone"
"""A phase without attackers."""
BESIDE: Final = "beside"
"""A phase in which the attackers attack another gateway and its node on the same machine."""
ATTACK: Final = "attack"
"""A phase in which they attack this one."""
IN_OUTAGE: Final = "outage"
"""Not a phase: what took place in an outage, as far as it passed at all."""

Latencies = dict[str, list[float]]
"""Seconds that something took, by when that was."""


def latencies(record: Record) -> dict[str, Latencies]:
    """Return how long things took, by what was measured.

    The gateway's own part of receiving begins when its node hands the message over; the node reads slowly from a peer
    while others flood it. How long the node itself takes to answer a call is measured beside the gateway.
    """
    got = [(one.number, one.time) for one in record.stream if isinstance(one, Delivered)]
    sent = [(send.begin, send.end) for send in record.sends.values() if send.outcome == "OK"]

    def end_for_sender(outage: Outage) -> float:
        return outage.sent if outage.is_kill else -inf

    def received(begins: dict[int, float]) -> Latencies:
        spans = [(begins[number], end) for number, end in got if number in begins]
        return _by_phase(record, spans, lambda outage: outage.received)

    return {
        "receive, hook to consumer": received(record.called),
        "receive, peer to consumer": received(record.sent),
        "send": _by_phase(record, sent, end_for_sender),
        "the node itself": _by_phase(record, record.asked, end_for_sender),
    }


def _by_phase(
    record: Record, spans: Iterable[tuple[float, float]], end_of: Callable[[Outage], float]
) -> Latencies:
    by_phase: Latencies = {name: [] for name in (ALONE, BESIDE, ATTACK, IN_OUTAGE)}
    for begin, end in spans:
        phase = next((name for name, first, last in record.phases if first <= begin and end <= last), "")
        if any(outage.begin <= end and begin <= end_of(outage) for outage in record.outages):
            by_phase[IN_OUTAGE].append(end - begin)
        elif phase:
            by_phase[phase].append(end - begin)
    return by_phase


def percentile(values: list[float], share: float) -> float:
    """Return a percentile; 0 if there are no values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
