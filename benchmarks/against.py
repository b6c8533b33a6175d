"""`python -m benchmarks.against CHECKOUT`: this tree beside another one, some cases of each in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case, select
from benchmarks.process import end_children_on_sigterm, environment

HERE: Final = Path(__file__).parents[1]
CHUNK: Final = 8
"""Cases that one tree runs before the other does: few, so that both see the same machine."""

Lines = Mapping[str, Mapping[str, Any]]
"""What one run of `python -m benchmarks` printed, by case."""

cli = App(name="benchmarks.against", help="This tree beside another one, some cases of each in turn.")


@dataclass(frozen=True, slots=True)
class Pair:
    """What both trees did in one case of one round."""

    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]

    def ratio(self, name: str) -> float | None:
        """Return our value as a part of theirs, if there are both."""
        ours, theirs = self.ours[name], self.theirs[name]
        return ours / theirs if ours and theirs else None


@cli.default
def against(
    checkout: Annotated[Path, Parameter(help="The other tree, with its .venv (make setup).")],
    *,
    only: Annotated[
        tuple[str, ...], Parameter(help="Cases by name or pattern: stream-*. Default: all.")
    ] = (),
    repeat: Annotated[int, Parameter(help="How many rounds.")] = 5,
    seconds: Annotated[float, Parameter(help="How long each measurement takes.")] = 1.0,
    json_too: Annotated[bool, Parameter(name="json", help="Print the results as JSON.")] = False,
) -> int:
    """Measure both trees, and print this one as a part of the other."""
    cases = select(only)
    pairs: dict[str, list[Pair]] = {case.name: [] for case in cases}
    trees = (HERE, checkout.resolve())
    for number in range(repeat):
        for chunk in _chunks(cases):
            # Who comes first changes: the second finds a warmer machine.
            order = trees if number % 2 == 0 else trees[::-1]
            lines = {tree: _run(tree, chunk, seconds) for tree in order}
            for name in chunk:
                pairs[name].append(Pair(lines[trees[0]][name], lines[trees[1]][name]))
        print(f"round {number + 1} of {repeat}", file=sys.stderr, flush=True)
    rows = [_row(case.name, pairs[case.name]) for case in cases]
    if json_too:
        print(json.dumps(rows))
    else:
        _show(rows, repeat)
    return 0


def _chunks(cases: Sequence[Case]) -> Iterator[list[str]]:
    names = [case.name for case in cases]
    for first in range(0, len(names), CHUNK):
        yield names[first : first + CHUNK]


def _run(tree: Path, names: Sequence[str], seconds: float) -> Lines:
    """Run some cases of a tree once, with its own Python."""
    only = [part for name in names for part in ("--only", name)]
    python = tree / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="custommsg-bench-") as folder:
        out = Path(folder) / "last.json"
        done = subprocess.run(
            [
                python,
                "-m",
                "benchmarks",
                *only,
                "--repeat=1",
                f"--seconds={seconds}",
                "--json",
                f"--out={out}",
            ],
            cwd=tree,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            raise OSError(f"{tree} measured nothing:\n{done.stderr[-2000:]}")
        lines = {line["case"]: line for line in json.loads(out.read_text())}
    for line in lines.values():
        if line["problem"] or line["failures"]:
            print(f"{line['case']}: {line['problem'] or line['failures']}", file=sys.stderr)
    return lines


def _row(name: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": name, "rounds": len(pairs)}
    for value in ("messages_per_s", "of_limit", "p50_ms", "p99_ms", "server_us", "server_rss_mb"):
        parts = [ratio for pair in pairs if (ratio := pair.ratio(value)) is not None]
        row[value] = median(parts) if parts else None
        row[f"{value}_from_to"] = [min(parts), max(parts)] if parts else None
        theirs = [pair.theirs[value] for pair in pairs if pair.theirs[value]]
        ours = [pair.ours[value] for pair in pairs if pair.ours[value]]
        row[f"{value}_ours"], row[f"{value}_theirs"] = (median(v) if v else None for v in (ours, theirs))
    return row


def _show(rows: Sequence[Mapping[str, Any]], repeat: int) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=150)
    columns = {
        "messages/s": "messages_per_s",
        "of limit": "of_limit",
        "p50": "p50_ms",
        "server µs": "server_us",
        "server MB": "server_rss_mb",
    }
    table = Table(title="This tree as a part of the other", title_justify="left", title_style="bold")
    table.add_column("case", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
        if column in ("of limit", "server µs"):
            table.add_column("from-to", justify="right", no_wrap=True)
    table.add_column("other: of limit, server µs", justify="right", no_wrap=True)
    for row in rows:
        cells = [row["case"]]
        for column, value in columns.items():
            cells.append("-" if row[value] is None else f"{row[value]:.2f}")
            if column in ("of limit", "server µs"):
                span = row[f"{value}_from_to"]
                cells.append("-" if span is None else f"{span[0]:.2f}-{span[1]:.2f}")
        theirs = (row["of_limit_theirs"], row["server_us_theirs"])
        cells.append(", ".join("-" if value is None else f"{value:,.2f}" for value in theirs))
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"Medians of {repeat} rounds in which both trees ran in turn. For messages/s and the part of the limit, more is"
        f" better; for time and memory, less is. Load average at the end: {os.getloadavg()[0]:.1f}.",
        highlight=False,
    )


def main() -> None:
    """Run the command line; end with its exit status."""
    end_children_on_sigterm()
    try:
        sys.exit(cli())
    except (ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
