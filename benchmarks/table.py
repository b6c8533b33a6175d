"""The table that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, GOALS
from benchmarks.result import Result, Rounds, ratio

_COLUMNS = (
    "case",
    "limits",
    "messages/s",
    "of limit",
    "p50 ms",
    "p99 ms",
    "server µs",
    "load µs",
    "node µs",
    "load busy",
    "server MB",
)
_SECTIONS = {case.name: case.section for case in CASES}


def show(console: Console, results: Sequence[Result], rounds: Rounds) -> None:
    """Print a table for each section, then how far the goals are reached."""
    for section, lines in groupby(results, lambda result: _SECTIONS[result.case]):
        table = Table(title=section, title_justify="left", title_style="bold")
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column in _COLUMNS[:2] else "right", no_wrap=True)
        for line in lines:
            table.add_row(*_cells(line))
        console.print(table)
    for result in results:
        if result.problem:
            console.print(f"{result.case} was not measured: {result.problem}", style="red", markup=False)
        elif result.failures:
            console.print(f"{result.case}: {result.failures} messages failed", style="red", markup=False)
    for case, against, goal in GOALS:
        if case in rounds and against in rounds:
            reached = ratio(rounds, case, against)
            console.print(
                f"{'reached' if reached >= goal else 'missed '}  {case} is {reached:.2f} of {against}"
                f" (goal: {goal})",
                style="green" if reached >= goal else "yellow",
                highlight=False,
            )


def _cells(line: Result) -> tuple[str, ...]:
    if line.problem:
        return (line.case, line.limits, *"-" * (len(_COLUMNS) - 2))
    # The load is the limit where it is at the end of its core, and what it talks to is not.
    is_load_bound = (
        (line.load_busy or 0) > 0.9 and (line.server_busy or 0) < 0.9 and line.server_us is not None
    )
    return (
        line.case,
        line.limits,
        f"{line.messages_per_s:,.0f}",
        f"{line.of_limit:.3f}",
        f"{line.p50_ms:.2f}",
        f"{line.p99_ms:.2f}",
        _number(line.server_us),
        _number(line.load_us),
        _number(line.node_us),
        _number(line.load_busy, 2) + (" !" if is_load_bound else ""),
        _number(line.server_rss_mb),
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
