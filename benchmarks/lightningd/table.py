"""The tables that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.lightningd.cases import CASES, COST_GOALS, GOALS, Section
from benchmarks.lightningd.result import Result, Rounds, cost, ratios

Column = tuple[str, Callable[[Result], str]]

_CALLS: Final[Sequence[Column]] = (
    ("a second", lambda line: f"{line.per_s:,.0f}"),
    ("ratio", lambda line: _ratio(line)),
    ("from-to", lambda line: _span(line)),
    ("lasting", lambda line: f"{line.lasting_per_s:,.0f}"),
)
_TIMES: Final[Sequence[Column]] = (
    ("p50 ms", lambda line: f"{line.p50_ms:.2f}"),
    ("p99 ms", lambda line: f"{line.p99_ms:.2f}"),
)
_COSTS: Final[Sequence[Column]] = (
    ("server µs", lambda line: f"{line.server_us:.1f}"),
    ("node µs", lambda line: f"{line.node_us:.1f}"),
    ("both µs", lambda line: f"{line.server_us + line.node_us:.1f}"),
)
_LATER: Final[Sequence[Column]] = (
    ("later µs", lambda line: f"{line.later_us:.1f}"),
    ("later s", lambda line: f"{line.later_s:.1f}"),
)
_REST: Final[Sequence[Column]] = (
    ("MB", lambda line: f"{line.server_mb:.0f}"),
    ("load", lambda line: f"{line.load_busy:.2f}"),
)
_LOST: Final[Sequence[Column]] = (("lost", lambda line: f"{line.lost:,}"),)

_COLUMNS: Final[dict[str, Sequence[Column]]] = {
    Section.UNARY: (*_CALLS, *_TIMES, *_COSTS, *_LATER, *_REST),
    Section.STREAM: (*_CALLS, *_TIMES, *_COSTS, *_LATER, *_REST),
    Section.RECEIVE: (*_CALLS, *_LOST, *_COSTS, *_LATER, *_REST),
    Section.CHANNEL: (*_CALLS, *_LOST, *_COSTS, *_LATER, *_REST),
    Section.LATENCY: (*_TIMES, ("p50 ratio", lambda line: _ratio(line)), *_LOST, *_COSTS, *_REST),
    Section.IDLE: (
        ("MB", lambda line: f"{line.server_mb:.1f}"),
        ("ratio", lambda line: _ratio(line)),
        ("start ms", lambda line: f"{1e3 * line.start_s:.0f}"),
    ),
}
_NOTES: Final[dict[str, str]] = {
    Section.UNARY: "calls a second; ratio: of cln-grpc with as many callers",
    Section.STREAM: "messages a second; ratio: of direct-32",
    Section.RECEIVE: "messages a second to each subscriber; ratio: of cln-grpc with as many subscribers",
    Section.CHANNEL: "messages a second to each subscriber; ratio: of cln-grpc with as many subscribers",
    Section.LATENCY: "latency: one of peers of lightningd; channel-latency: without a node; ratio: of cln-grpc",
    Section.IDLE: "just started, without a node; ratio: memory, of cln-grpc",
}


def show(console: Console, results: Sequence[Result], rounds: Rounds) -> None:
    """Print a table for each section, then how far the goals are reached."""
    for section, group in groupby(results, lambda line: line.section):
        columns = _COLUMNS[section]
        console.print(f"[bold]{section}[/]: {_NOTES[section]}", highlight=False)
        table = Table()
        table.add_column("case", no_wrap=True)
        for name, _ in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for line in group:
            table.add_row(line.case, *(_cell(line, show_one) for _, show_one in columns))
        console.print(table)
    for line in results:
        if line.problem:
            console.print(f"{line.case}: {line.problem}", style="red", markup=False)
    for line in results:
        if line.goal and line.ratio is not None:
            _show_goal(console, line.case, line.against, line.ratio, line.goal)
    named = {case.name: case for case in CASES}
    for case, against, goal in GOALS:
        if parts := ratios(rounds, named[case], named[against]):
            _show_goal(console, case, against, median(parts), goal)
    for case, against, goal in COST_GOALS:
        if parts := ratios(rounds, named[case], named[against], cost):
            _show_cost_goal(console, case, against, median(parts), goal)


def _show_goal(console: Console, case: str, against: str, reached: float, goal: float) -> None:
    console.print(
        f"{'reached' if round(reached, 2) >= goal else 'missed '}  {case} is {reached:.2f} of {against} (goal: {goal})",
        style="green" if round(reached, 2) >= goal else "yellow",
        highlight=False,
    )


def _show_cost_goal(console: Console, case: str, against: str, reached: float, goal: float) -> None:
    verdict = "reached" if round(reached, 2) <= goal else "missed "
    console.print(
        f"{verdict}  {case} takes {reached:.2f} of the CPU time of {against},"
        f" node and later work included (goal: at most {goal})",
        style="yellow" if verdict == "missed " else "green",
        highlight=False,
    )


def _cell(line: Result, show_one: Callable[[Result], str]) -> str:
    return "-" if line.problem and not line.per_s and not line.start_s else show_one(line)


def _ratio(line: Result) -> str:
    return "-" if line.ratio is None else f"{line.ratio:.2f}"


def _span(line: Result) -> str:
    if line.lowest is None or line.highest is None:
        return "-"
    return f"{line.lowest:.2f}-{line.highest:.2f}"
