"""The receive path, simulated under seeds. `make simulate ARGS="--seed N"` shows what happens in one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.run import simulate

CHUNKS = 20
SEEDS = 1000


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_is_promised_holds_whatever_happens(chunk: int) -> None:
    """Everything arrives once, in order, or is told to be missing, under faults, kills and any order of threads."""
    some = SEEDS // CHUNKS
    for seed in range(chunk * some, (chunk + 1) * some):
        result = simulate(seed)
        assert result.problem is None, f"seed {seed}: {result.problem}"


def test_a_seed_is_the_same_run_each_time() -> None:
    """In another process, with other hashes of strings, too: else a seed could not reproduce a failure."""
    seeds = range(12)
    program = f"from simulation.run import simulate\nfor seed in {list(seeds)}: print(simulate(seed).digest)"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert other.stdout.split() == [simulate(seed).digest for seed in seeds]
    assert len(set(other.stdout.split())) == len(seeds)
