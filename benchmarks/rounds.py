"""Runs the cases round by round, so that what changes on the machine meanwhile hits all alike."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.cases import Case
from benchmarks.job import Measured
from benchmarks.result import Rounds
from benchmarks.rig import Rig, Timing


def run(rig: Rig, cases: Sequence[Case], rounds: int, timing: Timing) -> Rounds:
    """Measure each case once a round; show on a terminal how far it is."""
    measured: dict[str, list[Measured]] = {case.name: [] for case in cases}
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=2,  # it shares the machine with what it shows
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("", total=rounds * len(cases))
        for number in range(rounds):
            # There and back again: a machine that grows slower favours no case.
            for case in cases if number % 2 == 0 else reversed(cases):
                progress.update(task, description=case.name)
                measured[case.name].append(rig.measure(case, timing))
                progress.advance(task)
    return measured
