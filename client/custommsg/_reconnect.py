"""Decides, without I/O, whether and when a subscription that lost its connection connects again.

Until it is registered for the first time it fails like any call (see _retry), so that a wrong address is reported at
once. After that it connects again until it is closed, or until trying again cannot help.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

import grpc

from custommsg._retry import Attempts, checked_timeout
from custommsg.errors import CustomMsgError, NotSent, Reason

FIRST_WAIT: Final = 0.1
"""Seconds after the first failure, before jitter; each further failure doubles it."""

MAX_WAIT: Final = 5.0
"""Seconds, before jitter. If the gateway asks for a longer wait, it gets it."""

# Codes that mean that the same request will fail again, unless the gateway itself says otherwise with RetryInfo.
_FINAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


def can_resume(failure: CustomMsgError) -> bool:
    """Tell whether connecting again can help after this failure.

    Receiving twice is harmless, so more is retried than for a send: also a connection that broke, and a failure about
    which the gateway said nothing.
    """
    if not isinstance(failure, NotSent):
        return False
    return failure.retry_after is not None or failure.code not in _FINAL


class Reconnects:
    """The connections of one subscription.

    Args:
        timeout: seconds, above 0, until it is registered; the first time for all attempts together.
        retry: whether there may be more than one attempt.
        now: the clock, in seconds.
        jitter: returns random numbers from 0 to 1: many subscribers that lost their connection at the same time do not
            come back at the same time.

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
        self._timeout = checked_timeout(timeout)
        self._retry = retry
        self._now = now
        self._jitter = jitter
        self._first: Attempts | None = None
        self._registered = False
        self.failures = 0
        """Failures since the gateway last sent something."""

    def time_to_register(self) -> float:
        """Return how many seconds the next connection may take until it is registered."""
        if self._registered:
            return self._timeout
        if self._first is None:
            self._first = Attempts(self._timeout, retry=self._retry, now=self._now, jitter=self._jitter)
        return self._first.time_left()

    def registered(self) -> None:
        """Note that the subscription is registered."""
        self._registered = True

    def heard(self) -> None:
        """Note that the gateway sent something: the next failure counts as the first."""
        self.failures = 0

    def wait_after(self, failure: CustomMsgError) -> float | None:
        """Return the seconds to wait before the next connection; None if `failure` is to be raised."""
        if not self._registered:
            return self._first.wait_after(failure) if self._first is not None else None
        if not self._retry or not can_resume(failure):
            return None
        self.failures += 1
        return backoff(failure, self.failures, self._jitter())


def backoff(failure: CustomMsgError, failures: int, jitter: float) -> float:
    """Return the seconds to wait before the next connection.

    Args:
        failure: why the last one failed.
        failures: how many there were since the gateway last sent something, this one included.
        jitter: a number from 0 to 1.
    """
    wait = min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    return max(failure.retry_after or 0.0, wait) * (1 + jitter / 2)


def ended() -> NotSent:
    """Make the failure for a stream that ended without a status, which a gateway never does on purpose."""
    message = "The gateway ended the stream without a reason."
    return NotSent(Reason.NOT_SENT, grpc.StatusCode.UNAVAILABLE, message)


def not_registered(seconds: float) -> NotSent:
    """Make the failure for a subscription that the gateway did not register in time."""
    message = f"The gateway did not register the subscription within {seconds:.3g} s."
    return NotSent(Reason.NOT_SENT, grpc.StatusCode.DEADLINE_EXCEEDED, message)
