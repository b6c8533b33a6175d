"""What the holder of a rune may do.

The node is asked whether a rune is authentic and not blacklisted, and again after a short time; its restrictions are
judged here, as lightningd judges them. What only the node can judge, a rate above all, it is asked about at each use.
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
from custommsg_server.domain.rune import Alternative, fields_of
from custommsg_server.domain.rune import Rune as ParsedRune

MAX_SIZE: Final = 4096
"""Characters of a rune: beyond any real one, and all of it may be in one header."""
MAX_CONDITIONS: Final = 64
"""Conditions that are judged here: beyond any real rune. One with more costs the event loop too much at each use."""
MAX_KNOWN: Final = 10_000
"""Runes that are remembered to have been valid when the node was last asked."""
MAX_STRANGERS: Final = 64
"""Checks at once of runes that were never valid. More are refused, so that made-up runes cannot fill the node's queue,
where everybody's messages wait."""
STRANGERS: Final = "(strangers)"
"""The caller in whose turn the node is asked about runes that were never valid."""
CHECK_TIME: Final = 10.0
"""Seconds that the node may take to say whether a rune is authentic."""
AUTHENTIC: Final = Use("checkrune", {})
"""The use that the node is asked about to learn whether a rune is valid; whether it permits this use does not matter.
A rune that names other methods does not, so that the node writes nothing to its database."""

_BASE64: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
_ID: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_FIELDS: Final = frozenset(("time", "id", "method", "pnum"))


class Checker(Protocol):
    """Judges runes: a node."""

    async def check_rune(
        self, rune: str, uses: Sequence[Use], deadline: float, caller: str
    ) -> list[RelayError | None]:
        """Return for each use why the rune does not permit it, or None; each that it permits counts as done."""


class Rune:
    """A rune as a caller shows it: well-formed, not yet checked by the node. Its repr does not show the rune.

    Raises:
        RelayError: NO_CREDENTIAL: it is not well-formed. lightningd would log what it cannot read, so it never gets it.
    """

    __slots__ = ("_parsed", "asks_node", "digest", "id", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # Only the text that this rune has when it is handed out: what a rune says must be beyond doubt.
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
        """The number that the node gave it; every rune derived from it has the same."""
        if not _ID.fullmatch(self.id):
            raise no_credential("the rune was not made by a Core Lightning node")
        conditions = self._parsed.conditions
        self.asks_node = (
            self._parsed.version is not None
            or len(conditions) > MAX_CONDITIONS
            or not all(map(_is_ours_to_judge, conditions))
        )
        """Whether it has something that only the node can judge, so that it is asked at each use."""
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
    """Judges runes, and asks a node what it cannot know.

    Args:
        node: who knows.
        interval: seconds after which it is asked again whether a rune is valid; 0: every time.
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

    def is_known(self, rune: Rune) -> bool:
        """Whether the rune was valid when the node was last asked."""
        return rune.digest in self._valid

    def has_to_ask(self, rune: Rune) -> bool:
        """Whether the node has to be asked before the rune is judged."""
        asked = self._valid.get(rune.digest)
        return rune.asks_node or asked is None or self._clock() - asked >= self._interval

    async def judge(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Say for each use why the rune does not permit it, or None. Deadlines are those of the loop's clock."""
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
        # One question, however many uses: a made-up rune must not fill the queue to the node.
        [first] = await self._ask(rune, uses[:1], deadline)
        if not self.is_known(rune):
            return [first] * len(uses)
        return [first, *(await self._ask(rune, uses[1:], deadline) if uses[1:] else ())]

    async def _authenticate(self, rune: Rune, deadline: float) -> RelayError | None:
        """Ask the node whether a rune is valid, once for all who wait for it; return why it is not, or None."""
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
            return [_crowded()] * len(uses)
        self._strangers += is_stranger
        try:
            # All strangers together are one caller: an id that was not checked may be anybody's.
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
    """What the holder of a rune may do. Implements `domain.caller.Permit`.

    Args:
        rune: the rune.
        runes: judges it.
        account: counts the call; it is told when the rune proves valid.
        record: of the call, for the time that the node takes.
    """

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
    """What a caller may do that has shown a client certificate, or where nobody is asked: everything.

    Implements `domain.caller.Permit`.
    """

    __slots__ = ()

    is_unrestricted = True
    asks_node = False

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """See `domain.caller.Permit`."""
        return [None] * len(uses)


def _is_ours_to_judge(one: Alternative) -> bool:
    if one.field in _FIELDS or one.field.startswith(("pname", "parr")):
        return True
    # A comment, whatever its field is called. A field that is not known here may mean something to a later lightningd.
    return one.condition == "#" and one.field not in ("rate", "per") and not one.field.startswith("pinv")


def _is_about_use(refusal: RelayError | None) -> bool:
    """Whether the node has accepted the rune as such, and spoke of what it permits."""
    return (
        refusal is None
        or refusal.reason is Reason.NOT_PERMITTED
        or refusal.metadata.get("limit") == "rune_rate"
    )


def _crowded() -> RelayError:
    return overloaded(
        "unknown_runes", "Too many callers show runes that the node has not checked before. Try again.", 1.0
    )
