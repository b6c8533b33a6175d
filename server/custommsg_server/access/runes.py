"""Permits that hold a caller to its rune, as the node judges it, or to nothing but its limits.

What is cached: verdicts on what a subscriber may see, for some seconds, since the next event of the same peer and
type asks the same again. Nothing else: each send is judged anew, so a rate counts and a withdrawn rune is withdrawn.
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

from custommsg_server.access.callers import Callers
from custommsg_server.domain.errors import Reason, RelayError, no_credential
from custommsg_server.domain.stages import stage
from custommsg_server.node.port import Use

MAX_SIZE: Final = 4096
"""Characters of a rune: beyond any real one, and all of it may be in one header."""
VERDICT_TTL: Final = 10.0
"""Seconds that a subscriber may go on to see what a rune permitted when it was last asked."""
MAX_VERDICTS: Final = 100_000
MAX_KNOWN: Final = 10_000
"""Runes that are remembered to have been valid once."""
MAX_STRANGERS: Final = 64
"""Checks at once of runes that were never valid: beyond it strangers wait outside, so that they cannot fill the
node's queue, in which everybody's messages are."""

_BASE64: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
_ID: Final = re.compile(r"=([0-9]{1,18})(?:[&-]|$)", re.ASCII)
_RATE: Final = re.compile(r"(?:^|[&|])(?:rate|per)[!=/^$~<>{}#]", re.ASCII)


class Checker(Protocol):
    """Judges runes: a node."""

    async def check_rune(self, rune: str, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Say of each use why the rune does not permit it, or None; each that it permits counts as done."""


class Rune:
    """A rune as a caller shows it: readable, but not yet known to be anybody's. Its repr is no credential.

    Raises:
        RelayError: NO_CREDENTIAL: it is none. lightningd would log what it cannot read, so it never gets it.
    """

    __slots__ = ("digest", "id", "is_rated", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        restrictions = _restrictions(text)
        found = _ID.match(restrictions)
        if found is None:
            raise no_credential("this is no rune of a Core Lightning node")
        self.id = found[1]
        """The number that the node has given it, and that all that is derived from it bears."""
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

    async def judge(self, rune: Rune, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Ask the node about each use, now."""
        if not uses:
            return []
        if rune.digest in self._known:
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
        with stage("rune"):
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


class _Accounted:
    """The part of a permit that is the same for all: what is sent is accounted for by the caller's name."""

    __slots__ = ("_callers", "name")

    def __init__(self, name: str, callers: Callers) -> None:
        self.name = name
        """Who it is, as far as the credential is valid."""
        self._callers = callers

    def take(self, messages: int, size: int) -> None:
        """Account for messages that are sent now."""
        self._callers.take(self.name, messages, size)

    def reserve(self, messages: int, size: int) -> float:
        """Account for messages; return the seconds to wait."""
        return self._callers.reserve(self.name, messages, size)

    def give_back(self, messages: int, size: int) -> None:
        """Undo a reservation."""
        self._callers.give_back(self.name, messages, size)


class RunePermit(_Accounted):
    """What the holder of a rune may do. Implements `permit.Permit`."""

    __slots__ = ("_rune", "_runes")

    def __init__(self, rune: Rune, runes: Runes, callers: Callers) -> None:
        super().__init__(f"rune:{rune.id}", callers)  # by its id, which no holder can change
        self._rune = rune
        self._runes = runes

    @property
    def secret_name(self) -> str:
        """A name that only who has the whole rune can take; it is no credential itself."""
        return self._rune.digest.hex()

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Say of each use why it is not permitted, or None."""
        return await self._runes.judge(self._rune, uses, deadline)

    async def sees(self, uses: Sequence[Use], deadline: float) -> list[bool]:
        """Say of each use whether it is permitted."""
        return await self._runes.sees(self._rune, uses, deadline)

    @property
    def is_rated(self) -> bool:
        """Whether the rune has a rate."""
        return self._rune.is_rated


class NamedPermit(_Accounted):
    """What a caller may do that has shown a client certificate: everything, within its limits.

    Implements `permit.Permit`.
    """

    __slots__ = ()

    is_rated = False

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        """Permit every use."""
        return [None] * len(uses)

    async def sees(self, uses: Sequence[Use], deadline: float) -> list[bool]:
        """Permit every use."""
        return [True] * len(uses)


def _restrictions(text: str) -> str:
    """Decode what a rune says: 32 bytes of hash, then text."""
    if len(text) > MAX_SIZE or not _BASE64.fullmatch(text):
        raise no_credential("this is no rune")
    try:
        return base64.urlsafe_b64decode(text)[32:].decode(errors="replace")
    except binascii.Error:
        raise no_credential("this is no rune") from None


def _crowded() -> RelayError:
    return RelayError(
        Reason.OVERLOADED,
        "Too many callers show runes that were never seen before. Nothing was sent; try again.",
        metadata={"limit": "unknown_runes"},
        retry_after=1.0,
    )
