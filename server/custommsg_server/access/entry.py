"""Lets calls in, each with a permit, and counts them by caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import grpc

from custommsg_server.access.callers import Callers
from custommsg_server.access.credentials import certificate_of, rune_of
from custommsg_server.access.runes import NamedPermit, Rune, RunePermit, Runes
from custommsg_server.domain.errors import no_credential
from custommsg_server.domain.permit import enter

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

Require = Literal["rune", "client-cert", "rune-or-client-cert"]
"""What a caller has to show."""


class Access:
    """Decides who may come in. What they may do then, the core asks their permit.

    Args:
        required: what a caller has to show.
        runes: judges runes.
        callers: counts calls.
    """

    def __init__(self, required: Require, runes: Runes, callers: Callers) -> None:
        self._required = required
        self._runes = runes
        self._callers = callers

    @contextmanager
    def entered(self, context: Context) -> Iterator[str]:
        """Let a call in, as long as the context lasts; give the name of its caller for the log.

        Raises:
            RelayError: NO_CREDENTIAL, or OVERLOADED for a caller with too many calls.
        """
        permit = self._permit(context)
        # The rune is not checked yet, so its id could be a lie; who knows its whole text has it.
        counted = permit.name if isinstance(permit, NamedPermit) else permit.secret_name
        self._callers.begin(counted)
        try:
            enter(permit)
            yield permit.name
        finally:
            self._callers.end(counted)

    def _permit(self, context: Context) -> RunePermit | NamedPermit:
        certificate = certificate_of(context)
        text = rune_of(context)
        if text is not None:
            # Shown, so it counts: also where a certificate alone would do, it narrows what the caller may.
            if self._required == "client-cert" and certificate is None:
                raise no_credential("a client certificate is asked for")
            return RunePermit(Rune(text), self._runes, self._callers)
        if self._required == "rune":
            raise no_credential("a rune is asked for")
        if certificate is None:
            raise no_credential(
                "a client certificate is asked for"
                if self._required == "client-cert"
                else "neither a rune nor a client certificate came with the call"
            )
        return NamedPermit(f"cert:{certificate}", self._callers)
