"""The limits of each caller: calls in progress, messages and bytes a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from custommsg_server.core.limits import Rate, TokenBuckets
from custommsg_server.domain.errors import overloaded


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """The limits of one caller; 0 is no limit."""

    calls: int = 0
    """Calls in progress, including streams and subscriptions."""
    rate: Rate = field(default_factory=Rate)
    """What it may send."""


class Accounts:
    """Counts the calls and messages of all callers."""

    def __init__(self, limits: CallerLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._calls: dict[str, int] = {}
        self.buckets: TokenBuckets[str] = TokenBuckets(limits.rate, clock)

    def set(self, limits: CallerLimits) -> None:
        """Apply other limits from now on."""
        self._limits = limits
        self.buckets.set(limits.rate)

    def begin(self, key: str) -> None:
        """Count a call; `end` has to follow. Raises RelayError: OVERLOADED; then `end` must not follow."""
        calls = self._calls.get(key, 0)
        if 0 < self._limits.calls <= calls:
            raise overloaded(
                "caller_calls",
                f"This caller has {calls} calls in progress, which is its limit. End some, then try again.",
                0.5,
            )
        self._calls[key] = calls + 1

    def end(self, key: str) -> None:
        """Count the end of a call."""
        self._calls[key] -= 1
        if not self._calls[key]:
            del self._calls[key]


class CallerAccount:
    """The account of one caller. Implements `domain.caller.Account`.

    Args:
        accounts: all accounts.
        name: the name of the caller.
        counted_as: the name under which its calls in progress are counted.
    """

    __slots__ = ("_accounts", "_name", "counted_as")

    def __init__(self, accounts: Accounts, name: str, counted_as: str) -> None:
        self._accounts = accounts
        self._name = name
        self.counted_as = counted_as

    def confirm(self) -> None:
        """Count the call under the caller's own name from now on: its credential is valid.

        Raises:
            RelayError: OVERLOADED: that name has too many calls.
        """
        if self.counted_as != self._name:
            self._accounts.begin(self._name)
            self._accounts.end(self.counted_as)
            self.counted_as = self._name

    def take(self, messages: int, size: int) -> None:
        """See `domain.caller.Account`."""
        buckets = self._accounts.buckets
        if buckets.is_off:
            return
        if wait := buckets.wait(self._name):
            raise overloaded(
                "caller_rate", f"This caller sends faster than its limit. Try again in {wait:.3f} s.", wait
            )
        buckets.charge(self._name, messages, size)

    def reserve(self, messages: int, size: int) -> float:
        """See `domain.caller.Account`."""
        buckets = self._accounts.buckets
        if buckets.is_off:
            return 0.0
        wait = buckets.wait(self._name)
        buckets.charge(self._name, messages, size)
        return wait

    def give_back(self, messages: int, size: int) -> None:
        """See `domain.caller.Account`."""
        self._accounts.buckets.give_back(self._name, messages, size)


class NoAccount:
    """The account without access control: nothing is limited. Implements `domain.caller.Account`."""

    __slots__ = ()

    def take(self, messages: int, size: int) -> None:
        """See `domain.caller.Account`."""

    def reserve(self, messages: int, size: int) -> float:
        """See `domain.caller.Account`."""
        return 0.0

    def give_back(self, messages: int, size: int) -> None:
        """See `domain.caller.Account`."""
