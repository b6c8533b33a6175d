"""`python -m benchmarks`: the gateway side by side with the node itself. See README.md."""

from __future__ import annotations

import json as json_module
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks import results, rounds, table
from benchmarks.cases import select
from benchmarks.process import StartError, end_children_on_sigterm
from benchmarks.profiling import profile as run_profile
from benchmarks.result import result_of
from benchmarks.rig import Timing, rig

cli = App(name="benchmarks", help="How fast the gateway is, side by side with the node itself.")


@cli.default
def bench(
    *,
    only: Annotated[
        tuple[str, ...], Parameter(help="Cases by name or pattern: stream-*. Default: all.")
    ] = (),
    repeat: Annotated[int, Parameter(help="How many rounds.")] = 5,
    seconds: Annotated[float, Parameter(help="How long each measurement takes.")] = 1.0,
    quick: Annotated[bool, Parameter(help="One short round, to see that it works.")] = False,
    rpc_file: Annotated[str | None, Parameter(help="A real node's socket, with peers connected.")] = None,
    json: Annotated[bool, Parameter(help="Print the results as JSON.")] = False,
    out: Annotated[Path, Parameter(help="Where the results are written.")] = results.LAST,
    save: Annotated[bool, Parameter(help="Measure nothing; keep the last results, to be committed.")] = False,
    profile: Annotated[str | None, Parameter(help="Show where the gateway's time goes in this case.")] = None,
) -> int:
    """Measure all cases and print the table."""
    # A log keeps what fits its lines; a terminal knows its own width.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    if save:
        return _save()
    timing = Timing(0.02, 0.08) if quick else Timing(seconds=seconds)
    if profile is not None:
        return _profile(console, profile, timing, rpc_file)
    cases = select(only)
    with rig(cases, rpc_file) as running:
        measured = rounds.run(running, cases, 1 if quick else repeat, timing)
    lines = [result_of(case, measured) for case in cases]
    results.write(out, [asdict(line) for line in lines])
    if json:
        print(json_module.dumps([asdict(line) for line in lines]))
    else:
        table.show(console, lines, measured)
    return 1 if any(line.problem or line.failures for line in lines) else 0


def _save() -> int:
    kept = [results.save(last) for last in results.ALL if last.exists()]
    for path in kept:
        print(path.relative_to(Path.cwd()))
    if not kept:
        raise ValueError("There are no results yet. Run: make bench")
    return 0


def _profile(console: Console, name: str, timing: Timing, rpc_file: str | None) -> int:
    [case] = [case for case in select((name,)) if case.name == name]
    if case.server not in ("gateway", "unlimited"):
        raise ValueError(f"{name} has no gateway to profile.")
    with (
        tempfile.TemporaryDirectory(prefix="custommsg-profile-") as folder,
        rig([case], rpc_file, Path(folder) / "stats") as running,
    ):
        run_profile(console, running, case, timing)
    return 0


def main() -> None:
    """Run the command line; end with its exit status."""
    end_children_on_sigterm()
    try:
        sys.exit(cli())
    except (ValueError, OSError, StartError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
