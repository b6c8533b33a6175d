"""Run the simulation: many seeds, or one with all that happens in it. Status 1 if something did not hold."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated, Final

from cyclopts import App, Parameter

from simulation.run import Result, simulate

app = App(name="simulate", help=__doc__, version_flags=[])

_CHUNK: Final = 50
"""Seeds that a process takes at once."""
_MOST: Final = 20
"""Failures after which a run ends."""


def run_some(first: int, count: int) -> list[Result]:
    """Run some seeds; return those in which something did not hold."""
    return [result for seed in range(first, first + count) if (result := simulate(seed)).problem is not None]


@app.default
def main(
    seeds: Annotated[int, Parameter(help="How many seeds to run.")] = 1000,
    first: Annotated[int, Parameter(help="The first of them.")] = 0,
    seed: Annotated[int | None, Parameter(help="Run this one alone, and print what happens.")] = None,
    jobs: Annotated[int, Parameter(help="How many processes to run.")] = 1,
) -> int:
    """Run the simulation."""
    if seed is not None:
        return _show(simulate(seed))
    began, failed, done = time.monotonic(), 0, 0
    for count, broken in _run_all(first, seeds, jobs):
        done += count
        for result in broken:
            print(f"\rseed {result.seed}: {result.problem}")
        failed += len(broken)
        print(
            f"\r{done:,} of {seeds:,} seeds, {failed} failed, {time.monotonic() - began:.0f} s",
            end="",
            flush=True,
        )
        if failed >= _MOST:
            break
    print()
    if failed:
        print("To see what happens in one: make simulate ARGS='--seed N'")
    return int(failed > 0)


def _run_all(first: int, seeds: int, jobs: int) -> Iterator[tuple[int, list[Result]]]:
    chunks = [(at, min(_CHUNK, first + seeds - at)) for at in range(first, first + seeds, _CHUNK)]
    if jobs == 1:
        for at, count in chunks:
            yield count, run_some(at, count)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for (_, count), broken in zip(chunks, pool.map(run_some, *zip(*chunks, strict=True)), strict=True):
            yield count, broken


def _show(result: Result) -> int:
    began = result.trace[0][0]
    for time_ns, what, *about in result.trace:
        print(f"{(time_ns - began) / 1e9:9.4f} s  {what}", *about)
    print(result.problem or "Everything holds.")
    return int(result.problem is not None)


if __name__ == "__main__":
    sys.exit(app())
