"""What the holder of a rune may do, as the node judges it.

Only verdicts on what a subscriber may see are cached, for some seconds: the next event of the same peer and type asks
the same again. Each send is judged anew, so that a rate counts and a deleted rune stops working.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from custommsg_server.access.accounts import CallerAccount
from custommsg_server.domain.caller import Record, Use
from custommsg_server.domain.errors import Reason, RelayError, no_credential, overloaded

MAX_SIZE: Final = 4096
"""Characters of a rune: beyond any real one, and all of it may be in one header."""
VERDICT_TTL: Final = 10.0
"""Seconds that a subscriber may go on to see what a rune permitted when it was last asked."""
MAX_VERDICTS: Final = 100_000
MAX_KNOWN: Final = 10_000
"""Runes that are remembered to have been valid once."""
MAX_STRANGERS: Final = 64
"""Checks at once of runes that were never valid. More are refused, so that made-up runes cannot fill the node's queue,
where everybody's messages wait."""

_BASE64: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
_ID: Final = re.compile(r"=([0-9]{1,18})(?:[&-]|$)", re.ASCII)
_RATE: Final = re.compile(r"(?:^|[&|])(?:rate|per)[!=/^$~<>{}#]", re.ASCII)


class Checker(Protocol):
    """Judges runes: a node."""

    async def check_rune(self, rune: str, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Return for each use why the rune does not permit it, or None; each that it permits counts as done."""


class Rune:
    """A rune as a caller shows it: well-formed, not yet checked by the node. Its repr does not show the rune.

    Raises:
        RelayError: NO_CREDENTIAL: it is not well-formed. lightningd would log what it cannot read, so it never gets it.
    """

    __slots__ = ("digest", "id", "is_rated", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        restrictions = _restrictions(text)
        found = _ID.match(restrictions)
        if found is None:
            raise no_credential("the rune was not made by a Core Lightning node")
        self.id = found[1]
        """The number that the node gave it; every rune derived from it has the same."""
        self.is_rated = _RATE.search(restrictions) is not None
        self.digest = hashlib.sha256(text.encode()).digest()

    def __repr__(self) -> str:
        return f"Rune(id={self.id})"


class Runes:
    """Asks a node what runes permit.

    Args:
        node: who knows.
        clock: seconds, monotonic.
    """

    def __init__(self, node: Checker, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._strangers = 0
        self._verdicts: OrderedDict[tuple[bytes, str], tuple[float, bool]] = OrderedDict()

    def is_known(self, rune: Rune) -> bool:
        """Whether the node has said that the rune is valid, now or earlier."""
        return rune.digest in self._known

    async def judge(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Ask the node about each use, now."""
        if not uses:
            return []
        if self.is_known(rune):
            return await self._ask(rune, uses, deadline)
        if self._strangers >= MAX_STRANGERS:
            return [_crowded()] * len(uses)
        self._strangers += 1
        try:
            # One question, however many uses: a made-up rune must not fill the queue to the node.
            [first] = await self._ask(rune, uses[:1], deadline)
        finally:
            self._strangers -= 1
        if first is not None and first.reason is not Reason.NOT_PERMITTED:
            return [first] * len(uses)
        self._known[rune.digest] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return [first, *(await self._ask(rune, uses[1:], deadline) if uses[1:] else ())]

    async def _ask(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        return await self._node.check_rune(rune.text, uses, deadline)

    async def sees(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[bool]:
        """Say what a subscriber may see; ask the node only for what was not asked lately.

        Raises:
            RelayError: the node cannot say now, or the rune is not valid any more.
        """
        now = self._clock()
        keys = [(rune.digest, repr(sorted(use.params.items()))) for use in uses]
        fresh = {key: use for key, use in zip(keys, uses, strict=True) if self._expires(key) <= now}
        for key, refusal in zip(fresh, await self.judge(rune, list(fresh.values()), deadline), strict=True):
            if refusal is not None and refusal.reason is not Reason.NOT_PERMITTED:
                raise refusal
            self._verdicts[key] = (now + VERDICT_TTL, refusal is None)
            self._verdicts.move_to_end(key)
        seen = [self._verdicts[key][1] for key in keys]
        while len(self._verdicts) > MAX_VERDICTS:
            self._verdicts.popitem(last=False)
        return seen

    def _expires(self, key: tuple[bytes, str]) -> float:
        return self._verdicts.get(key, (0.0, False))[0]


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
    def is_rated(self) -> bool:
        """See `domain.caller.Permit`."""
        return self._rune.is_rated

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """See `domain.caller.Permit`."""
        with self._record.stage("rune"):
            refusals = await self._runes.judge(self._rune, uses, deadline)
        if self._runes.is_known(self._rune):
            try:
                self._account.confirm()
            except RelayError as error:
                return [error] * len(uses)
        return refusals

    async def sees(self, uses: Sequence[Use], deadline: float) -> list[bool]:
        """See `domain.caller.Permit`."""
        return await self._runes.sees(self._rune, uses, deadline)


class Unrestricted:
    """What a caller may do that has shown a client certificate, or where nobody is asked: everything.

    Implements `domain.caller.Permit`.
    """

    __slots__ = ()

    is_unrestricted = True
    is_rated = False

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """See `domain.caller.Permit`."""
        return [None] * len(uses)

    async def sees(self, uses: Sequence[Use], deadline: float) -> list[bool]:
        """See `domain.caller.Permit`."""
        return [True] * len(uses)


def _restrictions(text: str) -> str:
    """Decode what a rune says: 32 bytes of hash, then text."""
    if len(text) > MAX_SIZE or not _BASE64.fullmatch(text):
        raise no_credential("the text is not a rune")
    try:
        return base64.urlsafe_b64decode(text)[32:].decode(errors="replace")
    except binascii.Error:
        raise no_credential("the text is not a rune") from None


def _crowded() -> RelayError:
    return overloaded(
        "unknown_runes", "Too many callers show runes that the node has not checked before. Try again.", 1.0
    )
