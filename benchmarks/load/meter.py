"""Counts what is answered in the measured time, which begins after the warm-up."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Mapping, Sequence
from math import inf
from time import perf_counter

from benchmarks.job import Job, Measured, Usage
from benchmarks.usage import usage_of


class Meter:
    """Measures one job. A load tells it of each answer, and sends nothing more when `is_over`.

    Args:
        job: says how long, and which processes to watch.
    """

    def __init__(self, job: Job) -> None:
        self.over = asyncio.Event()
        self._job = job
        self._watched = {**job.watch, "load": os.getpid()}
        self._began = self._ended = inf
        self._messages = 0
        self._failures = 0
        self._latencies = array("d")
        self._used: Mapping[str, Usage] = {}
        asyncio.get_running_loop().call_later(job.warm_up, self._begin)

    @property
    def is_over(self) -> bool:
        """Whether the measured time has passed."""
        return self.over.is_set()

    def answered(self, due: float) -> None:
        """Take note of a success; `due` is when it was to be sent, by `time.perf_counter`."""
        self.count(1)
        self.took(due)

    def count(self, messages: int) -> None:
        """Take note of successes."""
        if self._began <= perf_counter() < self._ended:
            self._messages += messages

    def took(self, due: float) -> None:
        """Take note of how long something took that was due then."""
        # By when it was due: what is answered after the end is the slowest, and must not be left out.
        if self._began <= due < self._ended:
            self._latencies.append(perf_counter() - due)

    def failed(self, messages: int = 1) -> None:
        """Take note of messages that were answered with an error."""
        self._failures += messages

    def result(self) -> Measured:
        """Return what was measured, after the last answer."""
        if not self.is_over:
            return Measured(problem="the load ended before the measured time")
        latencies = sorted(self._latencies)
        return Measured(
            seconds=self._ended - self._began,
            messages=self._messages,
            failures=self._failures,
            p50_ms=_percentile(latencies, 0.50),
            p99_ms=_percentile(latencies, 0.99),
            usage=self._used,
        )

    def _begin(self) -> None:
        self._before = self._usage()
        self._began = perf_counter()
        asyncio.get_running_loop().call_later(self._job.seconds, self._end)

    def _end(self) -> None:
        self._ended = perf_counter()
        self._used = {
            name: Usage(cpu_s=now.cpu_s - self._before[name].cpu_s, rss_mb=now.rss_mb)
            for name, now in self._usage().items()
            if name in self._before
        }
        self.over.set()

    def _usage(self) -> dict[str, Usage]:
        used = {name: usage_of(pid) for name, pid in self._watched.items()}
        return {name: usage for name, usage in used.items() if usage is not None}


def _percentile(latencies: Sequence[float], part: float) -> float:
    return 1e3 * latencies[int(part * len(latencies))] if latencies else 0.0
