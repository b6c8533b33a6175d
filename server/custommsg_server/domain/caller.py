"""The caller and its permissions: an argument of each method, from the servicer through the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from custommsg_server.domain.errors import Reason, RelayError


@dataclass(frozen=True, slots=True)
class Use:
    """An action of a caller as runes describe it: a method and its parameters by name."""

    method: str
    params: Mapping[str, str | int]
    """Texts have no characters that JSON escapes, since a rune is compared with the text in JSON."""


class Permit(Protocol):
    """What a caller may do. Deadlines are in seconds of the running event loop's clock."""

    @property
    def is_unrestricted(self) -> bool:
        """Whether it permits everything, so that no check is needed."""

    @property
    def asks_node(self) -> bool:
        """Whether the node checks each use, e.g. because of a rate. Each check counts as a use."""

    @property
    def for_later(self) -> str:
        """What is stored to judge uses of ENQUEUE later: no more than that takes. It is a secret."""

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Return for each use why it is not permitted, or None. Each permitted use counts as used."""


class Account(Protocol):
    """Counts what a caller sends, for its limits. Sizes are in bytes, framing included."""

    def take(self, messages: int, size: int) -> None:
        """Count messages that are sent now. Raises RelayError: OVERLOADED; nothing is counted."""

    def reserve(self, messages: int, size: int) -> float:
        """Count messages even above the limit; return the seconds to wait before sending them."""

    def give_back(self, messages: int, size: int) -> None:
        """Undo a reservation: the messages are not sent."""


class Record(Protocol):
    """The record of a call, for log, metrics and traces."""

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Mark a stage of the call, "validate", "rune" or "node", for as long as the context lasts."""


@dataclass(slots=True, eq=False)
class Caller:
    """Who makes a call."""

    name: str
    """For logs and limits: "rune:7", "cert:alice", or empty without access control."""
    key: str
    """Calls with the same key share turns and memory: the name, or without access control the connection."""
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
        """Return if the credential is valid, whatever it permits: for checks before expensive work.

        A credential that the node checks at each use is not checked here, since the check would count as a use.

        Raises:
            RelayError: NO_CREDENTIAL, or the node cannot answer now.
        """
        if self.permit.is_unrestricted or self.permit.asks_node:
            return
        [refusal] = await self.permit.judge([Use(method, {})], deadline)
        if refusal is not None and refusal.reason is not Reason.NOT_PERMITTED:
            raise refusal
