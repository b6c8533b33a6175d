"""The clock by which the age of what is stored counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

HASTE: Final = 24
"""How many times as fast the age clock goes while it makes up for the time that the gateway was away."""


class AgeClock:
    """The time by which the age of events counts, in nanoseconds; it goes on, whatever the machine's clock says.

    How long the gateway was away is known from the machine's clock alone, which may be far off. So that time is made
    up for by and by, and what a wrong clock would delete goes slowly enough for somebody to notice.

    Args:
        age: what it said last, before the gateway was away.
        away: for how long it was away; less than 0 is not possible, and counts as 0.
        monotonic_ns: the time that passes.
    """

    def __init__(self, age: int, away: int, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._age = age
        self._away = max(0, away)
        self._monotonic_ns = monotonic_ns
        self._looked_at = monotonic_ns()

    @property
    def away(self) -> int:
        """What is still to be made up for."""
        return self._away

    def now(self) -> int:
        """Return what it says."""
        now = self._monotonic_ns()
        passed, self._looked_at = now - self._looked_at, now
        made_up = min(self._away, (HASTE - 1) * passed)
        self._away -= made_up
        self._age += passed + made_up
        return self._age
