"""Decides, without I/O, whether and when a failed call is retried.

It is retried only if the gateway says that nothing was sent and when to come back (google.rpc.RetryInfo), not before
that, and only if the deadline leaves time for an answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from custommsg.errors import CustomMsgError, NotSent

MIN_WAIT: Final = 0.05
"""Seconds. It keeps a gateway that always says "at once" from being asked in a tight loop."""

MIN_ATTEMPT: Final = 0.1
"""Seconds. With less time left there is no further attempt: it could only turn "not sent" into "unknown"."""

MAX_TIMEOUT: Final = 365 * 86_400.0
"""Seconds. Far above this gRPC's clock overflows, and the deadline lies in the past."""


class Attempts:
    """The attempts of one call, under one deadline.

    Args:
        timeout: seconds for all attempts together, above 0.
        retry: whether there may be more than one.
        now: the clock, in seconds.
        jitter: returns random numbers from 0 to 1: many clients that were refused at the same time do not come back at
            the same time.

    Raises:
        ValueError: the timeout is not above 0.
    """

    def __init__(
        self,
        timeout: float,
        *,
        retry: bool,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._retry = retry
        self._deadline = now() + checked_timeout(timeout)

    def time_left(self) -> float:
        """Return the seconds until the deadline: the timeout of the next attempt."""
        return max(0.0, self._deadline - self._now())

    def wait_after(self, failure: CustomMsgError) -> float | None:
        """Return the seconds to wait before the next attempt; None if `failure` is to be raised."""
        wait = retry_wait(failure, self._jitter()) if self._retry else None
        return wait if wait is not None and wait + MIN_ATTEMPT <= self.time_left() else None


def retry_wait(failure: CustomMsgError, jitter: float) -> float | None:
    """Return the seconds to wait before a retry; None if a retry is not allowed.

    Args:
        failure: why it failed.
        jitter: a number from 0 to 1.
    """
    if not isinstance(failure, NotSent) or failure.retry_after is None:
        return None
    return max(failure.retry_after, MIN_WAIT) * (1 + jitter / 2)


def checked_timeout(timeout: float) -> float:
    """Check a timeout, in seconds; infinity becomes a year.

    Raises:
        ValueError: it is not above 0.
    """
    if not timeout > 0:  # also if it is NaN
        raise ValueError(f"a timeout must be above 0 seconds, not {timeout}")
    return min(timeout, MAX_TIMEOUT)
