"""Authenticates calls, and counts the calls of each caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc

from custommsg_server.access.accounts import Accounts, CallerAccount, NoAccount
from custommsg_server.access.credentials import certificate_of, rune_of
from custommsg_server.access.runes import RUNE_PREFIX, Rune, RunePermit, Runes, Unrestricted
from custommsg_server.domain.caller import Caller, Record, Use
from custommsg_server.domain.errors import RelayError, no_credential, not_permitted

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

Require = Literal["rune", "client-cert", "rune-or-client-cert"]
"""The credential that callers need."""

_CERTIFICATE: Final = "cert"
"""What is stored of a client certificate: it was checked when the connection was made."""
_UNRESTRICTED: Final = Unrestricted()
_CERTIFIED: Final = Unrestricted(_CERTIFICATE)
_NO_ACCOUNT: Final = NoAccount()


class Access:
    """Authenticates callers. The core checks what they may do, with their permits.

    Args:
        required: the credential that callers need; None: callers need no credential and are not identified.
        runes: checks runes.
        accounts: counts calls and messages.
    """

    def __init__(self, required: Require | None, runes: Runes, accounts: Accounts) -> None:
        self._required = required
        self._runes = runes
        self._accounts = accounts

    def enter(self, context: Context, record: Record) -> Caller:
        """Authenticate a call; `leave` has to follow.

        Raises:
            RelayError: NO_CREDENTIAL, or OVERLOADED for a caller with too many calls; then `leave` must not follow.
        """
        if self._required is None:
            return Caller("", context.peer(), _UNRESTRICTED, _NO_ACCOUNT, record)
        caller, account = self._identify(context, record)
        self._accounts.begin(account.counted_as)
        return caller

    def leave(self, caller: Caller) -> None:
        """Count the end of a call."""
        if isinstance(caller.account, CallerAccount):
            self._accounts.end(caller.account.counted_as)

    async def judge_later(
        self, credential: str, uses: Sequence[Use], deadline: float
    ) -> list[RelayError | None]:
        """Judge uses of a caller that has gone, by what its `Permit.for_later` was.

        A certificate, or none, counts for as long as the settings accept callers with it.
        """
        if credential.startswith(RUNE_PREFIX):
            try:
                rune = Rune(credential.removeprefix(RUNE_PREFIX))
            except RelayError as error:
                return [error] * len(uses)
            return await self._runes.judge(rune, uses, deadline)
        accepted = (None, "client-cert", "rune-or-client-cert") if credential == _CERTIFICATE else (None,)
        if self._required in accepted:
            return [None] * len(uses)
        return [not_permitted("the gateway no longer accepts callers without a rune")] * len(uses)

    def _identify(self, context: Context, record: Record) -> tuple[Caller, CallerAccount]:
        certificate = certificate_of(context)
        text = rune_of(context)
        if text is not None:
            # A rune always counts: even if a certificate is enough, the rune restricts the caller.
            if self._required == "client-cert" and certificate is None:
                raise no_credential("a client certificate is required")
            rune = Rune(text)
            name = f"rune:{rune.id}"  # the holder of a rune cannot change its id
            # Until the node has checked the rune, its id may be forged: count it under the digest of its whole text.
            account = CallerAccount(
                self._accounts, name, name if self._runes.is_known(rune) else rune.digest.hex()
            )
            return Caller(
                name, name, RunePermit(rune, self._runes, account, record), account, record
            ), account
        if self._required == "rune":
            raise no_credential("a rune is required")
        if certificate is None:
            raise no_credential(
                "a client certificate is required"
                if self._required == "client-cert"
                else "a rune or a client certificate is required"
            )
        name = f"cert:{certificate}"
        account = CallerAccount(self._accounts, name, name)
        return Caller(name, name, _CERTIFIED, account, record), account
