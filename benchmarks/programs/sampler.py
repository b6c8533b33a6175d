"""Finds out where a Python program spends its CPU time, by looking at it a thousand times a second."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

_INTERVAL: Final = 0.001
"""Seconds of CPU time between two looks."""


@dataclass(slots=True)
class Sampler:
    """Counts which line runs, and which functions are being called, in the main thread.

    A profiler that traces calls makes small functions look expensive, and counts what other programs take
    meanwhile. This one costs next to nothing; in return, time in C counts for the line that called it, and
    what other threads use is spread over all lines.
    """

    samples: int = 0
    lines: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)

    def end(self) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def seen(self) -> dict[str, Any]:
        """Return what was seen, for JSON."""
        return {"samples": self.samples, "lines": self.lines, "functions": self.functions}

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        self.lines[f"{_place(frame)}:{frame.f_lineno} {frame.f_code.co_qualname}"] += 1
        callers: set[str] = set()  # each once, or recursion would count for more than there is
        above: FrameType | None = frame
        while above is not None:
            callers.add(f"{_place(above)} {above.f_code.co_qualname}")
            above = above.f_back
        self.functions.update(callers)


def _place(frame: FrameType) -> str:
    return "/".join(Path(frame.f_code.co_filename).parts[-2:])
