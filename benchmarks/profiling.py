"""Where the time goes in the gateway during one case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.rig import Rig, Timing

_TOP: Final = 30


def profile(console: Console, rig: Rig, case: Case, timing: Timing) -> None:
    """Run a case with its gateway under the profiler, and print what takes most.

    Raises:
        ValueError: it could not be measured.
    """
    assert rig.stats is not None
    rig.measure(case, timing)  # caches fill, connections open
    measured = rig.profile(case, timing)
    if measured.problem or not measured.messages:
        raise ValueError(f"{case.name} was not measured: {measured.problem}")
    show(
        console,
        f"{case.name}: {measured.messages / measured.seconds:,.0f} messages/s",
        1e6 * measured.usage["server"].cpu_s / measured.messages,
        rig.stats,
    )


def show(console: Console, heading: str, cost_us: float, file: Path) -> None:
    """Print what takes most.

    Args:
        console: where to.
        heading: what was measured.
        cost_us: the gateway's CPU time for each message.
        file: what the profiled gateway writes.

    Raises:
        ValueError: it wrote nothing.
    """
    stats = _read(file)
    console.print(
        f"{heading}, {cost_us:.1f} µs of CPU each, {stats['samples']} samples",
        highlight=False,
    )
    share = cost_us / max(1, stats["samples"])
    console.print(_table("Lines, without what they call in Python", stats["lines"], share))
    # What is always being called, from the program's start to the event loop, tells nothing.
    functions = {where: count for where, count in stats["functions"].items() if count < stats["samples"]}
    console.print(_table("Functions, with what they call", functions, share))


def _table(title: str, counts: Mapping[str, int], share: float) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("µs/message", justify="right")
    table.add_column("where", no_wrap=True)
    for where, count in sorted(counts.items(), key=lambda item: -item[1])[:_TOP]:
        table.add_row(f"{count * share:.2f}", where)
    return table


def _read(path: Path) -> dict[str, Any]:
    end = monotonic() + 10
    while not path.exists():
        if monotonic() > end:
            raise ValueError("the profiled gateway wrote nothing")
        sleep(0.05)
    stats: dict[str, Any] = json.loads(path.read_text())
    return stats
