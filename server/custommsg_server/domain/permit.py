"""What one caller may do: asked by the core before it does it.

A permit belongs to a call; it is put into the context of the call's task, and so reaches whatever the call leads
to. The core behind the door (`guarded`) asks for it and fails without one, so nothing gets past by being forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Protocol

from custommsg_server.domain.errors import RelayError, no_credential
from custommsg_server.node.port import Use


class Permit(Protocol):
    """What a caller may do. Deadlines are in seconds of the running event loop's clock."""

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Say of each use why it is not permitted, or None; each that is permitted counts as done."""

    async def sees(self, uses: Sequence[Use], deadline: float) -> list[bool]:
        """Say of each use whether it is permitted; an answer may be some seconds old.

        Raises:
            RelayError: nobody can say now, or the credential is none (any more).
        """

    @property
    def is_rated(self) -> bool:
        """Whether the credential allows only so many uses a minute."""

    def take(self, messages: int, size: int) -> None:
        """Account for messages that are sent now (bytes in all).

        Raises:
            RelayError: OVERLOADED, by what the caller may send.
        """

    def reserve(self, messages: int, size: int) -> float:
        """Account for messages, whatever it is; return how many seconds to wait before sending them."""

    def give_back(self, messages: int, size: int) -> None:
        """Undo a reservation: they are not sent after all."""


_current: ContextVar[Permit] = ContextVar("permit")


def enter(permit: Permit) -> None:
    """Let this task, and those that it starts, do what the permit allows."""
    _current.set(permit)


def current() -> Permit:
    """Return the permit of the call that this task serves.

    Raises:
        RelayError: NO_CREDENTIAL, for a task that was not let in.
    """
    permit = _current.get(None)
    if permit is None:
        raise no_credential("nobody has let this call in")
    return permit


async def require(use: Use, deadline: float) -> None:
    """Let the current call go on if it may do this.

    Raises:
        RelayError: it may not, or nobody can say.
    """
    [refusal] = await current().judge([use], deadline)
    if refusal is not None:
        raise refusal
