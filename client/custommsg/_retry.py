"""Decides, without I/O, whether and when a failed call is tried again.

Only where the gateway itself says that nothing was sent and that a retry is worth it (google.rpc.RetryInfo),
not before the delay it asks for, and only while the deadline leaves time to hear the answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from custommsg.errors import CustomMsgError, NotSent

MIN_WAIT: Final = 0.05
"""Seconds. A gateway that says "at once" each time is still not asked in a tight loop."""

MIN_ATTEMPT: Final = 0.1
"""Seconds. A try with less time than this left is not made: it could only turn "not sent" into "unknown"."""

MAX_TIMEOUT: Final = 365 * 86_400.0
"""Seconds. gRPC's clock overflows somewhere above, and then every deadline has passed already."""


class Attempts:
    """The tries of one call, under one deadline.

    Args:
        timeout: seconds for all tries together, above 0.
        retry: whether there may be more than one.
        now: the clock, in seconds.
        jitter: a number from 0 to 1, evenly spread: clients that were refused together come back apart.

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
        """Seconds until the deadline: the timeout of the next try."""
        return max(0.0, self._deadline - self._now())

    def wait_after(self, failure: CustomMsgError) -> float | None:
        """Seconds to wait before the next try; None if `failure` is to be raised."""
        wait = retry_wait(failure, self._jitter()) if self._retry else None
        return wait if wait is not None and wait + MIN_ATTEMPT <= self.time_left() else None


def retry_wait(failure: CustomMsgError, jitter: float) -> float | None:
    """Seconds to wait before what failed is tried again, if time is left; None if it is not to be.

    Args:
        failure: why it failed.
        jitter: a number from 0 to 1.
    """
    if not isinstance(failure, NotSent) or failure.retry_after is None:
        return None
    return max(failure.retry_after, MIN_WAIT) * (1 + jitter / 2)


def checked_timeout(timeout: float) -> float:
    """Check a timeout, in seconds; infinity is a year.

    Raises:
        ValueError: it is not above 0.
    """
    if not timeout > 0:  # false for NaN too
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout}")
    return min(timeout, MAX_TIMEOUT)
