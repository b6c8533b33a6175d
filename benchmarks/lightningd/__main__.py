"""`python -m benchmarks.lightningd`: the gateway on a real lightningd, side by side with cln-grpc. See README.md."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks import results
from benchmarks.lightningd import table
from benchmarks.lightningd.cases import Case, Section, Target, select
from benchmarks.lightningd.measure import Measured, Rig, Setup, rig
from benchmarks.lightningd.programs import CLIENT
from benchmarks.lightningd.result import Rounds, results_of
from benchmarks.process import StartError, end_children_on_sigterm
from benchmarks.profiling import show

cli = App(name="benchmarks.lightningd", help="How fast the gateway is on a real lightningd, beside cln-grpc.")


@cli.default
def bench(
    *,
    lightningd: Annotated[str | None, Parameter(env_var="LIGHTNINGD", help="lightningd's program.")] = None,
    cln_grpc: Annotated[
        str | None, Parameter(env_var="CLN_GRPC", help="cln-grpc's program, to compare with it.")
    ] = None,
    only: Annotated[
        tuple[str, ...], Parameter(help="Cases by name or pattern: receive-*. Default: all.")
    ] = (),
    repeat: Annotated[int, Parameter(help="How many rounds.")] = 5,
    seconds: Annotated[float, Parameter(help="How long each measurement takes.")] = 2.0,
    size: Annotated[int, Parameter(help="Bytes of a message, its type included.")] = 100,
    quick: Annotated[bool, Parameter(help="One short round, to see that it works.")] = False,
    setting: Annotated[
        tuple[str, ...],
        Parameter(help="Another setting of the gateway: log-calls=none. Several are allowed."),
    ] = (),
    profile: Annotated[str | None, Parameter(help="Show where the gateway's time goes in this case.")] = None,
    json: Annotated[bool, Parameter(help="Print the results as JSON.")] = False,
    out: Annotated[Path, Parameter(help="Where the results are written.")] = results.LAST_LIGHTNINGD,
) -> int:
    """Measure all cases and print the tables."""
    if not lightningd:
        raise ValueError("No lightningd is named. Run: make bench LIGHTNINGD=/path/to/lightningd")
    if not CLIENT.exists():
        raise ValueError("The compiled client is missing. Run: make bench-client")
    cases = select(only, cln_grpc=bool(cln_grpc))
    setup = Setup(
        lightningd,
        cln_grpc or None,
        _environment(setting),
        warm_up=0.2 if quick else 0.5,
        seconds=0.3 if quick else seconds,
        size=size,
        profile=profile is not None,
    )
    # A log keeps what fits its lines; a terminal knows its own width.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    if profile is not None:
        return _profile(console, profile, setup)
    with rig(setup) as running:
        rounds = _run(running, cases, 1 if quick else repeat)
        version = running.version
    lines = results_of(cases, rounds)
    results.write(
        out, [asdict(line) for line in lines], {"lightningd": version, "size": size, "seconds": setup.seconds}
    )
    if json:
        print(json_module.dumps([asdict(line) for line in lines]))
    else:
        console.print(
            f"lightningd {version}, messages of {size} bytes, mutual TLS, {len(next(iter(rounds.values())))} rounds of"
            f" {setup.seconds:g} s; the load is a compiled client. {_load()}",
            highlight=False,
        )
        table.show(console, lines, rounds)
    return 1 if any(line.problem for line in lines) else 0


def _profile(console: Console, name: str, setup: Setup) -> int:
    [case] = [case for case in select((name,), cln_grpc=False) if case.name == name]
    if case.target not in (Target.GATEWAY, Target.DIALECT) or case.section is Section.IDLE:
        raise ValueError(f"{name} has no gateway to profile.")
    with rig(replace(setup, cln_grpc=None)) as running:
        running.measure(case)  # caches fill
        measured = running.profile(case)
        if measured.problem:
            raise ValueError(f"{name} was not measured: {measured.problem}")
        show(console, f"{name}: {measured.per_s:,.0f} a second", measured.server_us, running.stats(case))
    return 0


def _run(running: Rig, cases: Sequence[Case], rounds: int) -> Rounds:
    """Measure each case once a round, there and back again: a machine that grows slower favours none."""
    measured: dict[str, list[Measured]] = {case.name: [] for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            one = running.measure(case)
            measured[case.name].append(one)
            print(f"round {number + 1} of {rounds}: {case.name}{_brief(one)}", file=sys.stderr, flush=True)
    return measured


def _brief(one: Measured) -> str:
    if one.problem:
        return f": {one.problem}"
    return f": {one.per_s:,.0f} a second" if one.per_s else ""


def _environment(settings: Sequence[str]) -> dict[str, str]:
    named = {}
    for setting in settings:
        name, given, value = setting.partition("=")
        if not given:
            raise ValueError(f"{setting!r} is not a setting; write name=value")
        named[f"CUSTOMMSG_{name.upper().replace('-', '_')}"] = value
    return named


def _load() -> str:
    return f"Load average of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


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
