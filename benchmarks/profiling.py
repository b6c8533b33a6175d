"""Where the time goes in the gateway during one case."""

from __future__ import annotations

import pstats
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.rig import Rig, Timing


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function costs for each message. The profiler's own cost is in it: compare, do not add up."""

    function: str
    calls: float
    own_us: float
    total_us: float


def profile(console: Console, rig: Rig, case: Case, timing: Timing, top: int = 45) -> None:
    """Run a case with its gateway under the profiler, and print the functions that take most."""
    assert rig.stats is not None
    rig.measure(case, timing)  # caches fill, connections open
    measured = rig.profile(case, timing)
    if measured.problem:
        console.print(f"{case.name}: {measured.problem}", style="red", markup=False)
        return
    # The profiler sees the warm-up, too.
    messages = measured.messages * (1 + timing.warm_up / measured.seconds)
    costs = sorted(_costs(_wait_for(rig.stats), messages), key=lambda cost: -cost.own_us)
    table = Table(title=f"{case.name}: {measured.messages / measured.seconds:,.0f} messages/s while profiled")
    for column in ("own µs", "total µs", "calls"):
        table.add_column(f"{column}/message", justify="right")
    table.add_column("function", no_wrap=True)
    for cost in costs[:top]:
        table.add_row(f"{cost.own_us:.2f}", f"{cost.total_us:.2f}", f"{cost.calls:.2f}", cost.function)
    console.print(table)


def _costs(path: Path, messages: float) -> Iterator[Cost]:
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, total, _) in stats.items():
        where = f"{'/'.join(Path(file).parts[-2:])}:{line} " if line else ""
        yield Cost(where + name, calls / messages, 1e6 * own / messages, 1e6 * total / messages)


def _wait_for(path: Path) -> Path:
    end = monotonic() + 10
    while monotonic() < end:
        if path.exists() and path.stat().st_size:
            sleep(0.2)  # it is written in one go
            return path
        sleep(0.05)
    raise SystemExit("The profiled gateway wrote nothing.")
