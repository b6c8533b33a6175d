"""Callers for tests of the core."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from custommsg_server.access.accounts import NoAccount
from custommsg_server.access.runes import Unrestricted
from custommsg_server.domain.caller import Account, Caller, Permit, Use
from custommsg_server.domain.errors import RelayError


class NoRecord:
    """Notes nothing."""

    def stage(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext()


class Permits:
    """Permits what a test says, and counts what is asked."""

    is_unrestricted = False
    asks_node = False
    for_later = "a credential"

    def __init__(self, answer: RelayError | None = None) -> None:
        self.answer = answer
        self.asked: list[Use] = []

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        self.asked += uses
        return [self.answer] * len(uses)


def caller(permit: Permit | None = None, account: Account | None = None, key: str = "") -> Caller:
    """Make a caller; by default one that may do everything."""
    return Caller("", key, permit or Unrestricted(), account or NoAccount(), NoRecord())
