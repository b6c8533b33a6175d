"""The clock by which the age of what is stored counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

CATCH_UP_SPEED: Final = 24
"""How many times faster the age clock runs until it has caught up with the time in which the gateway did not run."""


class AgeClock:
    """The clock that measures the age of events, in nanoseconds. It never jumps, unlike the machine's clock.

    Only the machine's clock says for how long the gateway did not run, and it may be wrong. So the age clock does not
    jump by this time: it runs faster until it has caught up. If the machine's clock is wrong, events are deleted slowly
    enough for somebody to notice.

    Args:
        age: its last value.
        away: for how long the gateway did not run; a negative value counts as 0.
        monotonic_ns: the monotonic clock.
    """

    def __init__(self, age: int, away: int, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._age = age
        self._away = max(0, away)
        self._monotonic_ns = monotonic_ns
        self._looked_at = monotonic_ns()

    @property
    def away(self) -> int:
        """The time that it has still to catch up with."""
        return self._away

    def now(self) -> int:
        """Return its value."""
        now = self._monotonic_ns()
        passed, self._looked_at = now - self._looked_at, now
        caught_up = min(self._away, (CATCH_UP_SPEED - 1) * passed)
        self._away -= caught_up
        self._age += passed + caught_up
        return self._age
