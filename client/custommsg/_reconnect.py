"""Decides, without I/O, whether and when a subscription that lost its connection connects again.

Until it is registered for the first time it fails as any call does (see _retry): an address that is wrong
is told at once. After that it goes on until it is closed, or until trying again cannot help.
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
"""Seconds, before jitter, after the first failure; doubled with each one that follows."""

MAX_WAIT: Final = 5.0
"""Seconds, before jitter. A gateway that asks for more gets it."""

# Codes that say: not this request, whoever gave them. Only a gateway's own RetryInfo says otherwise.
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
    """Tell whether to connect again can help after this failure.

    Receiving has no outcome that could be unknown, so more is tried again than for a send: also a
    connection that broke, and a failure of which the gateway has said nothing.
    """
    if not isinstance(failure, NotSent):
        return False
    return failure.retry_after is not None or failure.code not in _FINAL


class Reconnects:
    """The connections of one subscription.

    Args:
        timeout: seconds, above 0, until it is registered; for the first time all tries together.
        retry: whether there may be more than one try, ever.
        now: the clock, in seconds.
        jitter: a number from 0 to 1, evenly spread: subscribers that were cut together come back apart.

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
        """How many there were since something was last heard from the gateway."""

    def time_to_register(self) -> float:
        """Return the seconds that the next connection has until it must be registered."""
        if self._registered:
            return self._timeout
        if self._first is None:
            self._first = Attempts(self._timeout, retry=self._retry, now=self._now, jitter=self._jitter)
        return self._first.time_left()

    def registered(self) -> None:
        """Note that the subscription is registered."""
        self._registered = True

    def heard(self) -> None:
        """Note that the gateway sent something: the next failure is a first one."""
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
        failures: how many there were since something was last heard from the gateway, this one included.
        jitter: a number from 0 to 1.
    """
    wait = min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    return max(failure.retry_after or 0.0, wait) * (1 + jitter / 2)


def ended() -> NotSent:
    """Make the failure for a stream that ended without one, which no gateway means to do."""
    return NotSent(
        Reason.NOT_SENT, grpc.StatusCode.UNAVAILABLE, "The stream ended without a word of the gateway."
    )


def not_registered(seconds: float) -> NotSent:
    """Make the failure for a gateway that did not register the subscription in time."""
    message = f"The gateway did not register the subscription within {seconds:.3g} s."
    return NotSent(Reason.NOT_SENT, grpc.StatusCode.DEADLINE_EXCEEDED, message)
