"""Runes: tokens that their holder can narrow, and only narrow (https://github.com/rustyrussell/runes).

A rune is a list of restrictions, of each of which one alternative has to hold, and a SHA-256 over the node's
secret and all of them. Texts and the order of the checks are those of ccan/rune in lightningd.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

CONDITIONS: Final = frozenset("!=/^$~<>{}#")
_HASH_SIZE: Final = 32
_ALTERNATIVE: Final = re.compile(r"([\w]*)([!=/^$~<>{}#])(.*)", re.ASCII | re.DOTALL)
_URLSAFE: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}", re.ASCII)

Value = str | int | None
"""What a condition is held against; None if the call has no such field."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One condition: a field, an operator, a value."""

    field: str
    condition: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Alternative:
        """Read it, without escapes.

        Raises:
            ValueError: it is none.
        """
        found = _ALTERNATIVE.fullmatch(text)
        if found is None:
            raise ValueError("no field, operator and value")
        return cls(*found.groups())

    def encode(self) -> str:
        """Write it, with escapes."""
        return self.field + self.condition + re.sub(r"([\\|&])", r"\\\1", self.value)

    def complaint(self, given: Value) -> str | None:
        """Return why `given` does not satisfy it; None if it does."""
        if self.condition == "#":
            return None
        if self.condition == "!":
            return None if given is None else f"{self.field} is present"
        if given is None:
            return f"{self.field} not present"
        if self.condition in "<>":
            return self._compared(given)
        text, value = str(given), self.value
        passes, complaint = {
            "=": (text == value, "is not equal to"),
            "/": (text != value, "is equal to"),
            "^": (text.startswith(value), "does not start with"),
            "$": (text.endswith(value), "does not end with"),
            "~": (value in text, "does not contain"),
            "{": (text < value, "is equal to or ordered after"),
            "}": (text > value, "is equal to or ordered before"),
        }[self.condition]
        return None if passes else f"{self.field} {complaint} {value}"

    def _compared(self, given: str | int) -> str | None:
        if not isinstance(given, int):
            return f"{self.field} is not an integer field"
        if not re.fullmatch(r"\s*[+-]?[0-9]+", self.value, re.ASCII):
            return f"{self.value} is not a valid integer"
        limit = int(self.value)
        if self.condition == "<":
            return None if given < limit else f"{self.field} is greater or equal to {self.value}"
        return None if given > limit else f"{self.field} is less or equal to {self.value}"


Restriction = tuple[Alternative, ...]
"""Alternatives, of which one has to hold."""


@dataclass(frozen=True, slots=True)
class Rune:
    """A rune. Its text is a credential; its repr shows only the id."""

    code: bytes
    restrictions: tuple[Restriction, ...]

    @classmethod
    def derive(cls, secret: bytes, restrictions: Iterable[Restriction]) -> Rune:
        """Make the rune that has these restrictions; the first one is its id."""
        restrictions = tuple(restrictions)
        return cls(_code(secret, restrictions), restrictions)

    @classmethod
    def parse(cls, text: str) -> Rune:
        """Read it.

        Raises:
            ValueError: it is none. The text is not quoted.
        """
        if not _URLSAFE.fullmatch(text):
            raise ValueError("not URL-safe base64")
        try:
            raw = base64.urlsafe_b64decode(text)
        except binascii.Error:
            raise ValueError("not base64") from None
        if len(raw) < _HASH_SIZE or b"\0" in raw[_HASH_SIZE:]:
            raise ValueError("too short, or not text")
        restrictions = _split(raw[_HASH_SIZE:].decode(errors="surrogateescape"))
        for index, restriction in enumerate(restrictions):
            if any(not one.field for one in restriction) and (index or len(restriction) > 1):
                raise ValueError("an id that is not the first restriction")
        if restrictions and not restrictions[0][0].field and restrictions[0][0].condition != "=":
            raise ValueError("an id without =")
        return cls(raw[:_HASH_SIZE], restrictions)

    @property
    def unique_id(self) -> str | None:
        """The id that the node has given it and all that is derived from it."""
        first = self.restrictions[0][0] if self.restrictions else None
        return first.value.partition("-")[0] if first and not first.field else None

    @property
    def version(self) -> str:
        """The version of its meaning; empty in all that lightningd makes."""
        first = self.restrictions[0][0] if self.restrictions else None
        return first.value.partition("-")[2] if first and not first.field else ""

    def is_derived_from(self, secret: bytes) -> bool:
        """Whether the holder of the secret has made it, or somebody by narrowing such a one."""
        return self.code == _code(secret, self.restrictions)

    def complaint(self, value_of: Callable[[Alternative], Value | Complaint]) -> str | None:
        """Return why a call is not permitted; None if it is."""
        for index, restriction in enumerate(self.restrictions):
            if index == 0 and not restriction[0].field:
                continue
            complaints = []
            for alternative in restriction:
                value = value_of(alternative)
                said = value.text if isinstance(value, Complaint) else alternative.complaint(value)
                if said is None:
                    break
                complaints.append(said)
            else:
                return " AND ".join(complaints)
        return None

    def encode(self) -> str:
        """Write it as it is handed out."""
        text = "&".join(map(_encode, self.restrictions))
        return base64.urlsafe_b64encode(self.code + text.encode(errors="surrogateescape")).decode()

    def __repr__(self) -> str:
        return f"Rune(unique_id={self.unique_id})"


@dataclass(frozen=True, slots=True)
class Complaint:
    """The outcome of a condition that is held against nothing: why it fails, None if it does not."""

    text: str | None


def _split(text: str) -> tuple[Restriction, ...]:
    restrictions: list[Restriction] = []
    alternatives: list[Alternative] = []
    part = ""
    rest = iter(text)
    for char in rest:
        if char == "\\":
            if (escaped := next(rest, None)) is None:
                raise ValueError("it ends within an escape")
            part += escaped
        elif char in "|&":
            alternatives.append(Alternative.parse(part))
            part = ""
            if char == "&":
                restrictions.append(tuple(alternatives))
                alternatives = []
        else:
            part += char
    if part or alternatives:
        alternatives.append(Alternative.parse(part))
        restrictions.append(tuple(alternatives))
    return tuple(restrictions)


def _encode(restriction: Restriction) -> str:
    return "|".join(alternative.encode() for alternative in restriction)


def _code(secret: bytes, restrictions: Iterable[Restriction]) -> bytes:
    # Each part ends as SHA-256 would end there, so that the state so far is itself a digest: who has it can
    # go on, and cannot go back.
    stream = secret
    for restriction in restrictions:
        stream += _end(len(stream)) + _encode(restriction).encode(errors="surrogateescape")
    return hashlib.sha256(stream).digest()


def _end(size: int) -> bytes:
    return b"\x80" + bytes((128 - 8 - size % 64 - 1) % 64) + (size * 8).to_bytes(8, "big")
