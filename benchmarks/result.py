"""From the measurements of all rounds to one result for each case: medians and ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import Case
from benchmarks.job import Measured

Rounds = Mapping[str, Sequence[Measured]]
"""What was measured, by the case's name; all cases have the same rounds."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case; medians over the rounds. None where nobody can tell."""

    case: str
    messages_per_s: float
    of_limit: float
    """Part of what `against` reached in the same round."""
    against: str
    limits: str
    p50_ms: float
    p99_ms: float
    server_us: float | None
    """CPU microseconds of the server for each message: the gateway's, where the case has one."""
    server_rss_mb: float | None
    node_us: float | None
    load_us: float | None
    load_busy: float | None
    """Part of a core that the load itself took; near 1, the load may have been the limit."""
    server_busy: float | None
    failures: int
    peers: int
    size: int
    callers: int
    batch: int
    connections: int
    rate: float
    rounds: int
    problem: str = ""


def rate(measured: Measured) -> float:
    """Return messages a second."""
    return measured.messages / measured.seconds if measured.seconds else 0.0


def ratio(rounds: Rounds, case: str, against: str) -> float:
    """Return the median over the rounds of one case's rate as a part of another's in the same round.

    Pairs of the same round, so that what changes on the machine from round to round counts for both.
    """
    pairs = zip(rounds.get(case, ()), rounds.get(against, ()), strict=True)
    parts = [rate(one) / rate(other) for one, other in pairs if rate(other)]
    return median(parts) if parts else 0.0


def result_of(case: Case, rounds: Rounds) -> Result:
    """Put the rounds of a case together."""
    measured = rounds[case.name]
    good = [one for one in measured if not one.problem] or [Measured()]

    def used(name: str, value: Callable[[Measured, str], float]) -> float | None:
        values = [value(one, name) for one in good if name in one.usage and one.messages]
        return median(values) if values else None

    def micros(one: Measured, name: str) -> float:
        return 1e6 * one.usage[name].cpu_s / one.messages

    def busy(one: Measured, name: str) -> float:
        return one.usage[name].cpu_s / one.seconds

    return Result(
        case=case.name,
        messages_per_s=median(map(rate, good)),
        of_limit=ratio(rounds, case.name, case.against),
        against=case.against,
        limits=case.limits,
        p50_ms=median(one.p50_ms for one in good),
        p99_ms=median(one.p99_ms for one in good),
        server_us=used("server", micros),
        server_rss_mb=used("server", lambda one, name: one.usage[name].rss_mb),
        node_us=used("node", micros),
        load_us=used("load", micros),
        load_busy=used("load", busy),
        server_busy=used("server", busy),
        failures=sum(one.failures for one in measured),
        peers=case.peers,
        size=case.size,
        callers=case.callers,
        batch=case.batch,
        connections=case.connections,
        rate=case.rate,
        rounds=len(measured),
        problem=next((one.problem for one in measured if one.problem), ""),
    )
