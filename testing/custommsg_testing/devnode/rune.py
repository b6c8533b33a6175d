"""Runes: tokens that their holder can restrict further, but never widen (https://github.com/rustyrussell/runes).

A rune is a list of restrictions and a SHA-256 over the node's secret and all of them. Of each restriction one
alternative has to hold. What is accepted, the texts and the order of the checks are those of ccan/rune and
lightningd/runes.c.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

CONDITIONS: Final = frozenset("!=/^$~<>{}#")
_HASH_SIZE: Final = 32
_INT64: Final = range(-(1 << 63), 1 << 63)

_FIELD: Final = r"[^!-/:-@\[-^`{-~]*"  # anything but ASCII punctuation; `_` is allowed
_PLAIN: Final = re.compile(rf"({_FIELD})([!=/^$~<>{{}}#])(.*)", re.DOTALL)
_ENCODED: Final = re.compile(rf"({_FIELD})([!=/^$~<>{{}}#])((?:[^\\|&]|\\.)*+)([|&]?)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)

Value = str | int | None
"""What a condition is compared with. None: the call has no such field."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """The outcome of a condition that has been judged elsewhere: why it does not hold; None if it does."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Alternative:
    """One condition: a field, an operator and a value."""

    field: str
    condition: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Alternative:
        """Read a condition without escapes, as createrune takes it.

        Raises:
            ValueError: the text has no operator after its field.
        """
        found = _PLAIN.fullmatch(text)
        if found is None:
            raise ValueError("there is no operator after the field")
        return cls(*found.groups())

    def encode(self) -> str:
        """Write the condition with escapes, as it stands in a rune."""
        return self.field + self.condition + re.sub(r"([\\|&])", r"\\\1", self.value)

    def complaint(self, given: Value) -> str | None:
        """Return why `given` does not satisfy the condition; None if it does."""
        if self.condition == "#":
            return None
        if self.condition == "!":
            return None if given is None else f"{self.field} is present"
        if given is None:
            return f"{self.field} not present"
        if self.condition in "<>":
            return self._compare(given)
        text, value = str(given), self.value
        holds, complaint = {
            "=": (text == value, "is not equal to"),
            "/": (text != value, "is equal to"),
            "^": (text.startswith(value), "does not start with"),
            "$": (text.endswith(value), "does not end with"),
            "~": (value in text, "does not contain"),
            "{": (text < value, "is equal to or ordered after"),
            "}": (text > value, "is equal to or ordered before"),
        }[self.condition]
        return None if holds else f"{self.field} {complaint} {value}"

    def _compare(self, given: str | int) -> str | None:
        if not isinstance(given, int):
            return f"{self.field} is not an integer field"
        limit = _integer(self.value)
        if limit is None:
            return f"{self.value} is not a valid integer"
        if self.condition == "<":
            return None if given < limit else f"{self.field} is greater or equal to {self.value}"
        return None if given > limit else f"{self.field} is less or equal to {self.value}"


Restriction = tuple[Alternative, ...]
"""Alternatives, of which one has to hold."""


@dataclass(frozen=True, slots=True)
class Rune:
    """A rune. Its text is a credential, so that its repr shows only its id."""

    code: bytes
    restrictions: tuple[Restriction, ...]

    @classmethod
    def derive(cls, secret: bytes, restrictions: Iterable[Restriction]) -> Rune:
        """Make the rune that has these restrictions, the first of which is its id."""
        restrictions = tuple(restrictions)
        return cls(_code(secret, restrictions), restrictions)

    @classmethod
    def parse(cls, text: str) -> Rune:
        """Read a rune as it is handed out.

        Raises:
            ValueError: the text is not a rune. The error does not quote it.
        """
        raw = _unbase64(text)
        if len(raw) < _HASH_SIZE or b"\0" in raw[_HASH_SIZE:]:
            raise ValueError("it is too short, or not text")
        restrictions = _decode(raw[_HASH_SIZE:].decode(errors="surrogateescape"))
        for index, restriction in enumerate(restrictions):
            if any(not one.field for one in restriction) and (index or len(restriction) > 1):
                raise ValueError("a field is missing: only the first restriction may be an id")
        if restrictions and not restrictions[0][0].field and restrictions[0][0].condition != "=":
            raise ValueError("the operator of an id is not =")
        return cls(raw[:_HASH_SIZE], restrictions)

    @property
    def unique_id(self) -> str | None:
        """The id that the node has given to the rune, and that all runes derived from it have too."""
        first = self.restrictions[0][0] if self.restrictions else None
        return first.value.partition("-")[0] if first and not first.field else None

    @property
    def version(self) -> str:
        """The version behind the id. It is empty in all runes that lightningd makes."""
        first = self.restrictions[0][0] if self.restrictions else None
        return first.value.partition("-")[2] if first and not first.field else ""

    def is_derived_from(self, secret: bytes) -> bool:
        """Say whether the owner of the secret has made this rune, or a rune that it was derived from."""
        return self.code == _code(secret, self.restrictions)

    def complaint(self, value_of: Callable[[Alternative], Value | Complaint]) -> str | None:
        """Return why a call is not permitted; None if it is permitted.

        Args:
            value_of: returns what the call has for the field of a condition, or judges the condition itself.
        """
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
        """Write the rune as it is handed out."""
        text = "&".join(map(_encode, self.restrictions))
        return base64.urlsafe_b64encode(self.code + text.encode(errors="surrogateescape")).decode()

    def __repr__(self) -> str:
        return f"Rune(unique_id={self.unique_id})"


class Runes:
    """A node's runes. Their secret comes from the node's key; when each was used last is not kept on disk.

    Args:
        key: the node's secret key.
        clock: seconds since 1970.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.secret = hashlib.sha256(b"commando" + key).digest()
        self.clock = clock
        self.used: dict[str, float] = {}
        self.blacklist: set[int] = set()
        self._next = 0

    def next_id(self) -> str:
        """Return an id for a new rune."""
        self._next += 1
        return str(self._next - 1)


def _unbase64(text: str) -> bytes:
    # ccan/base64 ignores the `=` at the end of the last four characters, however many there are or are missing.
    whole = (len(text) - 1) // 4 * 4 if text else 0
    text = text[:whole] + text[whole:].rstrip("=")
    if len(text) % 4 == 1 or not _BASE64.fullmatch(text):
        raise ValueError("it is not URL-safe base64")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _decode(text: str) -> tuple[Restriction, ...]:
    restrictions: list[Restriction] = []
    alternatives: list[Alternative] = []
    position = 0
    while position < len(text) or alternatives:
        found = _ENCODED.match(text, position)
        if found is None:
            raise ValueError("a condition has no operator")
        field, condition, value, separator = found.groups()
        position = found.end()
        if not separator and position < len(text):
            raise ValueError("it ends within an escape")
        alternatives.append(Alternative(field, condition, _ESCAPE.sub(r"\1", value)))
        if separator != "|":
            restrictions.append(tuple(alternatives))
            alternatives = []
    return tuple(restrictions)


def _encode(restriction: Restriction) -> str:
    return "|".join(alternative.encode() for alternative in restriction)


def _integer(text: str) -> int | None:
    # As strtol(3) reads it, and None where it does not read all of it.
    found = re.fullmatch(r"[ \t\n\v\f\r]*([+-]?)0*([0-9]{1,19})", text, re.ASCII)
    return value if found and (value := int(found[1] + found[2])) in _INT64 else None


def _code(secret: bytes, restrictions: Iterable[Restriction]) -> bytes:
    # Each part is padded as SHA-256 pads its end, so that the state after it is itself a digest: whoever has that
    # digest can add restrictions, and cannot remove any.
    stream = secret
    for restriction in restrictions:
        stream += _padding(len(stream)) + _encode(restriction).encode(errors="surrogateescape")
    return hashlib.sha256(stream).digest()


def _padding(size: int) -> bytes:
    return b"\x80" + bytes((128 - 8 - size % 64 - 1) % 64) + (size * 8).to_bytes(8, "big")
