"""From the measurements of all rounds to one result for each case: medians, and ratios within a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.lightningd.cases import Case, Section
from benchmarks.lightningd.measure import Measured

Rounds = Mapping[str, Sequence[Measured]]
"""What was measured, by the case's name; all cases have the same rounds."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case; medians over the rounds."""

    case: str
    section: str
    per_s: float
    lasting_per_s: float
    ratio: float | None
    """Part of what `against` reached in the same round; of latency and of what a server takes at rest: of what
    `against` takes."""
    lowest: float | None
    """The lowest of these ratios ..."""
    highest: float | None
    """... and the highest: how much they differ from round to round."""
    against: str
    goal: float
    p50_ms: float
    p99_ms: float
    server_us: float
    node_us: float
    later_us: float
    later_s: float
    server_mb: float
    load_busy: float
    lost: int
    """In all rounds together."""
    start_s: float
    rounds: int
    problem: str


def value(case: Case, measured: Measured) -> float:
    """Return what cases of this kind are compared by."""
    if case.section is Section.LATENCY:
        return measured.p50_ms
    return measured.server_mb if case.section is Section.IDLE else measured.per_s


def cost(_: Case, measured: Measured) -> float:
    """Return the CPU time of a message, of server and node together."""
    return measured.server_us + measured.node_us


def ratios(
    rounds: Rounds, case: Case, against: Case, of: Callable[[Case, Measured], float] = value
) -> list[float]:
    """Return one case as a part of another, for each round.

    Pairs of the same round, so that what changes on the machine from round to round counts for both.
    """
    if case.name not in rounds or against.name not in rounds:
        return []
    pairs = zip(rounds[case.name], rounds[against.name], strict=True)
    return [
        of(case, one) / of(against, other)
        for one, other in pairs
        if not one.problem and not other.problem and of(against, other)
    ]


def results_of(cases: Sequence[Case], rounds: Rounds) -> list[Result]:
    """Put the rounds together."""
    named = {case.name: case for case in cases}
    return [_result(case, named, rounds) for case in cases]


def _result(case: Case, named: Mapping[str, Case], rounds: Rounds) -> Result:
    measured = rounds[case.name]
    good = [one for one in measured if not one.problem] or [Measured()]
    parts = ratios(rounds, case, named[case.against]) if case.against in named else []
    middle = {
        name: median(getattr(one, name) for one in good)
        for name in (
            *("per_s", "lasting_per_s", "p50_ms", "p99_ms", "server_us", "node_us", "later_us", "later_s"),
            *("server_mb", "load_busy", "start_s"),
        )
    }
    return Result(
        case=case.name,
        section=case.section,
        ratio=median(parts) if parts else None,
        lowest=min(parts, default=None),
        highest=max(parts, default=None),
        against=case.against,
        goal=case.goal,
        lost=sum(one.lost for one in measured),
        rounds=len(measured),
        problem=next((one.problem for one in measured if one.problem), ""),
        **middle,
    )
