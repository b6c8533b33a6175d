"""How much each caller may do: calls at once, messages and bytes a second.

A caller is known by its client certificate or by its rune; where callers are not asked who they are, they are not
told apart and not limited.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from custommsg_server.domain.errors import Reason, RelayError

MAX_CALLERS: Final = 10_000
"""Callers whose rates are remembered; the one that was idle for the longest time is forgotten first."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What one caller may do; 0 is no limit."""

    calls: int = 0
    """Calls at once, streams and subscriptions among them."""
    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    burst: float = 1.0
    """Seconds' worth that may be sent at once after a pause."""


class Callers:
    """Keeps account of what each caller does.

    Args:
        limits: what one may do.
        clock: seconds, monotonic.
    """

    def __init__(self, limits: CallerLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._calls: dict[str, int] = {}
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def set(self, limits: CallerLimits) -> None:
        """Hold callers to other limits from now on."""
        self._limits = limits

    def begin(self, caller: str) -> None:
        """Account for a call; `end` has to follow.

        Raises:
            RelayError: OVERLOADED; then `end` must not follow.
        """
        calls = self._calls.get(caller, 0)
        if 0 < self._limits.calls <= calls:
            raise _over(
                "caller_calls", f"This caller has {calls} calls in flight already, as many as it may.", 0.5
            )
        self._calls[caller] = calls + 1

    def end(self, caller: str) -> None:
        """Account for the end of a call."""
        self._calls[caller] -= 1
        if not self._calls[caller]:
            del self._calls[caller]

    def take(self, caller: str, messages: int, size: int) -> None:
        """Account for messages that are sent now (bytes in all), if that is allowed.

        Raises:
            RelayError: OVERLOADED, with the time when it will be.
        """
        if wait := self._wait(caller):
            raise _over(
                "caller_rate", f"This caller sends faster than it may. Try again in {wait:.3f} s.", wait
            )
        self._charge(caller, messages, size)

    def reserve(self, caller: str, messages: int, size: int) -> float:
        """Account for messages, whatever it is; return how many seconds to wait before sending them."""
        wait = self._wait(caller)
        self._charge(caller, messages, size)
        return wait

    def _wait(self, caller: str) -> float:
        return max(0.0, self._free_at.get(caller, 0.0) - self._clock() - self._limits.burst)

    def give_back(self, caller: str, messages: int, size: int) -> None:
        """Undo a reservation: the messages are not sent after all."""
        if caller in self._free_at:
            self._free_at[caller] -= self._cost(messages, size)

    def _cost(self, messages: int, size: int) -> float:
        limits = self._limits
        return max(
            messages / limits.messages_per_s if limits.messages_per_s else 0.0,
            size / limits.bytes_per_s if limits.bytes_per_s else 0.0,
        )

    def _charge(self, caller: str, messages: int, size: int) -> None:
        cost = self._cost(messages, size)
        if not cost:
            return
        self._free_at[caller] = max(self._free_at.get(caller, 0.0), self._clock()) + cost
        self._free_at.move_to_end(caller)
        if len(self._free_at) > MAX_CALLERS:
            self._free_at.popitem(last=False)


def _over(limit: str, what: str, wait: float) -> RelayError:
    return RelayError(
        Reason.OVERLOADED, f"{what} Nothing was sent.", metadata={"limit": limit}, retry_after=wait
    )
