"""Checks runes: the permissions of callers.

The node checks that a rune is authentic and not blacklisted, and again after a short time. The restrictions are checked
here, as lightningd checks them. Restrictions that only the node can check, such as a rate, it checks at each use.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Final, Protocol

from custommsg_server.access.accounts import CallerAccount
from custommsg_server.domain.caller import Record, Use
from custommsg_server.domain.errors import (
    Reason,
    RelayError,
    no_credential,
    not_permitted,
    not_sent,
    overloaded,
)
from custommsg_server.domain.narrowing import narrowed
from custommsg_server.domain.rune import Alternative, fields_of
from custommsg_server.domain.rune import Rune as ParsedRune

MAX_SIZE: Final = 4096
"""The maximum length of a rune: real ones are shorter, and it fits into one header."""
MAX_CONDITIONS: Final = 64
"""The maximum number of conditions that are checked here; more would block the event loop. Real runes have fewer."""
MAX_KNOWN: Final = 10_000
"""The number of runes that are remembered as valid."""
MAX_STRANGERS: Final = 64
"""Checks in progress of runes that are not known as valid. More are refused, so that forged runes cannot fill the queue
of requests to the node."""
STRANGERS: Final = "(strangers)"
"""The caller under which the node is asked about runes that are not known as valid."""
CHECK_TIME: Final = 10.0
"""Seconds that the node may take to check whether a rune is authentic."""
AUTHENTIC: Final = Use("checkrune", {})
"""The use that is checked to find out whether a rune is valid. Most runes do not permit it, so that the node writes
nothing to its database."""

RUNE_PREFIX: Final = "rune:"
"""Begins the text of a rune that is stored to judge uses later."""

_BASE64: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
_ID: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_FIELDS: Final = frozenset(("time", "id", "method", "pnum"))


class Checker(Protocol):
    """Checks runes: a node."""

    async def check_rune(
        self, rune: str, uses: Sequence[Use], deadline: float, caller: str
    ) -> list[RelayError | None]:
        """Return for each use why the rune does not permit it, or None. Each permitted use counts as used."""


class Rune:
    """A rune from a call: well-formed, but not yet checked by the node. Its repr does not show the rune.

    Raises:
        RelayError: NO_CREDENTIAL: it is malformed. It is not sent to lightningd, which would log it.
    """

    __slots__ = ("_parsed", "asks_node", "digest", "id", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # Only the canonical text of a rune is accepted, so that its meaning is unambiguous.
        if len(text) > MAX_SIZE or not _BASE64.fullmatch(text):
            raise no_credential("the text is not a rune")
        try:
            self._parsed = ParsedRune.parse(text)
            is_exact = base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)).decode() == text
        except ValueError:
            is_exact = False
        if not is_exact:
            raise no_credential("the text is not a rune")
        self.id = self._parsed.unique_id or ""
        """The number that the node gave it; every rune derived from it has the same one."""
        if not _ID.fullmatch(self.id):
            raise no_credential("the rune was not made by a Core Lightning node")
        conditions = self._parsed.conditions
        self.asks_node = (
            self._parsed.version is not None
            or len(conditions) > MAX_CONDITIONS
            or not all(map(_is_ours_to_judge, conditions))
        )
        """Whether it has conditions that only the node can check, so that the node is asked at each use."""
        self.digest = hashlib.sha256(text.encode()).digest()

    def refusal(self, use: Use, now: float) -> RelayError | None:
        """Return why its restrictions do not permit a use; None if they do.

        Args:
            use: what the caller wants to do.
            now: seconds since 1970.
        """
        fields = fields_of(use.method, use.params, now)
        why = self._parsed.complaint(lambda one: one.complaint(fields.get(one.field)))
        return None if why is None else not_permitted(why)

    def __repr__(self) -> str:
        return f"Rune(id={self.id})"


class Runes:
    """Checks runes, and asks a node what only the node knows.

    Args:
        node: the node.
        interval: seconds after which it is asked again whether a rune is valid; 0: at each use.
        clock: seconds, monotonic.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        node: Checker,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._interval = interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._valid: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[RelayError | None]] = {}
        self._strangers = 0

    def set(self, interval: float) -> None:
        """Apply another interval from now on."""
        self._interval = interval

    def is_known(self, rune: Rune) -> bool:
        """Whether the rune was valid when the node was last asked."""
        return rune.digest in self._valid

    def has_to_ask(self, rune: Rune) -> bool:
        """Whether the node has to be asked before the rune is checked."""
        asked = self._valid.get(rune.digest)
        return rune.asks_node or asked is None or self._clock() - asked >= self._interval

    async def judge(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Return for each use why the rune does not permit it, or None. The deadline is in the loop's seconds."""
        if not uses:
            return []
        if rune.asks_node:
            return await self._judge_at_node(rune, uses, deadline)
        if self.has_to_ask(rune) and (refusal := await self._authenticate(rune, deadline)) is not None:
            return [refusal] * len(uses)
        now = self._wall_clock()
        return [rune.refusal(use, now) for use in uses]

    async def _judge_at_node(
        self, rune: Rune, uses: Sequence[Use], deadline: float
    ) -> list[RelayError | None]:
        if self.is_known(rune):
            return await self._ask(rune, uses, deadline)
        # One request first: a forged rune must not fill the queue to the node.
        [first] = await self._ask(rune, uses[:1], deadline)
        if not self.is_known(rune):
            return [first] * len(uses)
        return [first, *(await self._ask(rune, uses[1:], deadline) if uses[1:] else ())]

    async def _authenticate(self, rune: Rune, deadline: float) -> RelayError | None:
        """Ask the node whether a rune is valid, once for all that wait for it; return why it is not, or None."""
        asking = self._asking.get(rune.digest)
        if asking is None or self._interval == 0:
            asking = asyncio.create_task(self._ask_whether_authentic(rune))
            self._asking[rune.digest] = asking
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(asking)
        except TimeoutError:
            return not_sent()

    async def _ask_whether_authentic(self, rune: Rune) -> RelayError | None:
        try:
            deadline = asyncio.get_running_loop().time() + CHECK_TIME
            [refusal] = await self._ask(rune, [AUTHENTIC], deadline)
        finally:
            self._asking.pop(rune.digest, None)
        return None if _is_about_use(refusal) else refusal

    async def _ask(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Ask the node, and remember whether the rune is valid."""
        is_stranger, asked = not self.is_known(rune), self._clock()
        if is_stranger and self._strangers >= MAX_STRANGERS:
            text = "Too many calls with runes that the node has not checked before. Try again."
            return [overloaded("unknown_runes", text, 1.0)] * len(uses)
        self._strangers += is_stranger
        try:
            # All runes that are not known count as one caller, since their ids may be forged.
            refusals = await self._node.check_rune(
                rune.text, uses, deadline, STRANGERS if is_stranger else f"rune:{rune.id}"
            )
        finally:
            self._strangers -= is_stranger
        if _is_about_use(refusals[-1]):
            self._valid[rune.digest] = asked
            self._valid.move_to_end(rune.digest)
            if len(self._valid) > MAX_KNOWN:
                self._valid.popitem(last=False)
        elif refusals[-1] is not None and refusals[-1].reason is Reason.NO_CREDENTIAL:
            self._valid.pop(rune.digest, None)
        return refusals


class RunePermit:
    """What the holder of a rune may do. Implements `domain.caller.Permit`."""

    __slots__ = ("_account", "_record", "_rune", "_runes")

    is_unrestricted = False

    def __init__(self, rune: Rune, runes: Runes, account: CallerAccount, record: Record) -> None:
        self._rune = rune
        self._runes = runes
        self._account = account
        self._record = record

    @property
    def asks_node(self) -> bool:
        """See `domain.caller.Permit`."""
        return self._rune.asks_node

    @property
    def for_later(self) -> str:
        """See `domain.caller.Permit`: a rune derived from this one, that permits nothing but enqueueing.

        lightningd has no such command, so whoever finds the text can do nothing with it there.
        """
        return RUNE_PREFIX + _for_enqueueing(self._rune.text)

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """See `domain.caller.Permit`."""
        with self._record.stage("rune") if self._runes.has_to_ask(self._rune) else nullcontext():
            refusals = await self._runes.judge(self._rune, uses, deadline)
        if self._runes.is_known(self._rune):
            try:
                self._account.confirm()
            except RelayError as error:
                return [error] * len(uses)
        return refusals


class Unrestricted:
    """Permits everything: for callers with a client certificate, or without access control.

    Implements `domain.caller.Permit`.

    Args:
        for_later: "cert" for a client certificate; empty without access control.
    """

    __slots__ = ("for_later",)

    is_unrestricted = True
    asks_node = False

    def __init__(self, for_later: str = "") -> None:
        self.for_later = for_later

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """See `domain.caller.Permit`."""
        return [None] * len(uses)


@lru_cache(maxsize=256)
def _for_enqueueing(text: str) -> str:
    return narrowed(text, (Alternative("method", "=", "enqueuecustommsg"),))


def _is_ours_to_judge(one: Alternative) -> bool:
    if one.field in _FIELDS or one.field.startswith(("pname", "parr")):
        return True
    # `#` is a comment, whatever its field. Other unknown fields may have a meaning in later releases of lightningd.
    return one.condition == "#" and one.field not in ("rate", "per") and not one.field.startswith("pinv")


def _is_about_use(refusal: RelayError | None) -> bool:
    """Whether the node has accepted the rune, and refused at most the use."""
    return (
        refusal is None
        or refusal.reason is Reason.NOT_PERMITTED
        or refusal.metadata.get("limit") == "rune_rate"
    )
