"""Who makes a call, and what it may do: handed from the servicer through the core, in each signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from custommsg_server.domain.errors import Reason, RelayError


@dataclass(frozen=True, slots=True)
class Use:
    """Something that a caller wants to do, in the words of a rune: a method and its parameters by name."""

    method: str
    params: Mapping[str, str | int]
    """Texts hold nothing that JSON escapes: a rune is held against them as they stand in JSON."""


class Permit(Protocol):
    """What a caller may do. Deadlines are in seconds of the running event loop's clock."""

    @property
    def is_unrestricted(self) -> bool:
        """Whether it permits everything, so that nobody need ask."""

    @property
    def asks_node(self) -> bool:
        """Whether the node is asked about each use, for instance because of a rate: each question counts as a use."""

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Return for each use why it is not permitted, or None. Each permitted use counts as done."""


class Account(Protocol):
    """How much a caller sends, held against its limits. Sizes are in bytes, framing included."""

    def take(self, messages: int, size: int) -> None:
        """Account for messages that are sent now.

        Raises:
            RelayError: OVERLOADED; nothing is accounted for.
        """

    def reserve(self, messages: int, size: int) -> float:
        """Account for messages in any case; return the seconds to wait before sending them."""

    def give_back(self, messages: int, size: int) -> None:
        """Undo a reservation: the messages are not sent."""


class Record(Protocol):
    """What is noted of a call for log, metrics and traces."""

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Mark a stage of the call, "validate", "rune" or "node", for as long as the context lasts."""


@dataclass(slots=True, eq=False)
class Caller:
    """Who makes a call."""

    name: str
    """For logs and accounts: "rune:7", "cert:alice", or empty where nobody is asked."""
    key: str
    """Whom it shares turns and memory with: all calls of its name; where nobody is asked, those of its connection."""
    permit: Permit
    account: Account
    record: Record

    async def require(self, use: Use, deadline: float) -> None:
        """Return if the caller may do this.

        Raises:
            RelayError: NOT_PERMITTED, NO_CREDENTIAL, or the node cannot answer now.
        """
        if self.permit.is_unrestricted:
            return
        [refusal] = await self.permit.judge([use], deadline)
        if refusal is not None:
            raise refusal

    async def prove(self, method: str, deadline: float) -> None:
        """Return if the credential is valid, whatever it permits: before work is done for its holder.

        A credential that the node judges at each use is not asked about: the question would count as a use.

        Raises:
            RelayError: NO_CREDENTIAL, or the node cannot answer now.
        """
        if self.permit.is_unrestricted or self.permit.asks_node:
            return
        [refusal] = await self.permit.judge([Use(method, {})], deadline)
        if refusal is not None and refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal
