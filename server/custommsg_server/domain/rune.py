"""Runes: tokens that their holder can restrict further, but never widen (https://github.com/rustyrussell/runes).

A rune is a code, which only the node can check, and a list of restrictions. Of each restriction one alternative has
to hold. The syntax, the texts and the order of the checks are those of ccan/rune and of check_condition in
lightningd/runes.c. A check that is less strict than the node's would admit callers whom the node refuses.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

CONDITIONS: Final = frozenset("!=/^$~<>{}#")
HASH_SIZE: Final = 32
_INT64: Final = range(-(1 << 63), 1 << 63)

FIELD: Final = r"[^!-/:-@\[-^`{-~]*"
"""Anything but ASCII punctuation; `_` is allowed."""
_ENCODED: Final = re.compile(rf"({FIELD})([!=/^$~<>{{}}#])((?:[^\\|&]|\\.)*+)([|&]?)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_PUNCTUATION: Final = re.compile(r"[!-/:-@\[-`{-~]")
_IN_ENGLISH: Final = {
    "pname": "parameter ",
    "parr": "parameter #",
    "pnum": "number of parameters",
    "pinv": "invoice parameter ",
}

Value = str | int | None
"""The value of a field: its text in JSON, or a number of 64 bits; None: there is no such field."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One condition: a field, an operator and a value."""

    field: str
    condition: str
    value: str

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
        match self.condition:
            case "=":
                holds, complaint = text == value, "is not equal to"
            case "/":
                holds, complaint = text != value, "is equal to"
            case "^":
                holds, complaint = text.startswith(value), "does not start with"
            case "$":
                holds, complaint = text.endswith(value), "does not end with"
            case "~":
                holds, complaint = value in text, "does not contain"
            case "{":
                holds, complaint = _bytes(text) < _bytes(value), "is equal to or ordered after"
            case _:
                holds, complaint = _bytes(text) > _bytes(value), "is equal to or ordered before"
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
"""Alternatives; one of them has to hold."""


@dataclass(frozen=True, slots=True)
class Rune:
    """A rune. Its text is a credential, so its repr shows only its id."""

    code: bytes
    restrictions: tuple[Restriction, ...]

    @classmethod
    def parse(cls, text: str) -> Rune:
        """Parse the text of a rune. Raises ValueError: the text is not a rune. The error does not quote it."""
        raw = _unbase64(text)
        if len(raw) < HASH_SIZE or b"\0" in raw[HASH_SIZE:]:
            raise ValueError("it is too short, or contains a zero byte")
        restrictions = _decode(raw[HASH_SIZE:].decode(errors="surrogateescape"))
        for index, restriction in enumerate(restrictions):
            if any(not one.field for one in restriction) and (index or len(restriction) > 1):
                raise ValueError("a field is missing: only the first restriction may be an id")
        if restrictions and not restrictions[0][0].field and restrictions[0][0].condition != "=":
            raise ValueError("the operator of an id is not =")
        return cls(raw[:HASH_SIZE], restrictions)

    @property
    def unique_id(self) -> str | None:
        """The id that the node has given to the rune, and that all runes derived from it have too."""
        return None if self._id is None else self._id.partition("-")[0]

    @property
    def version(self) -> str | None:
        """The version after the id, which may be empty; None in all runes that lightningd makes."""
        _, hyphen, version = (self._id or "").partition("-")
        return version if hyphen else None

    @property
    def conditions(self) -> list[Alternative]:
        """All conditions: everything but the id."""
        return [one for each in self.restrictions for one in each if one.field]

    def complaint(self, judge: Callable[[Alternative], str | None]) -> str | None:
        """Return why a call is not permitted, in lightningd's words; None if it is permitted.

        Args:
            judge: returns why a condition does not hold; None if it does.
        """
        for restriction in self.restrictions:
            if not restriction[0].field:
                continue  # the id
            complaints = []
            for alternative in restriction:
                complaint = judge(alternative)
                if complaint is None:
                    break
                complaints.append(complaint)
            else:
                return _in_english(" AND ".join(complaints))
        return None

    @property
    def _id(self) -> str | None:
        first = self.restrictions[0][0] if self.restrictions else None
        return first.value if first and not first.field else None

    def __repr__(self) -> str:
        return f"Rune(unique_id={self.unique_id})"


def fields_of(method: str | None, params: Mapping[str, str | int], now: float) -> dict[str, str | int]:
    """Return the fields of a call, which the conditions of a rune are compared with.

    Args:
        method: the method; None: not given.
        params: its parameters by name; texts as in JSON.
        now: seconds since 1970.
    """
    fields: dict[str, str | int] = {"time": int(now), "pnum": len(params)}
    if method is not None:
        fields["method"] = method
    for name, value in params.items():
        for field in _fields_of_parameter(name):
            fields.setdefault(field, value)
    return fields


@lru_cache(maxsize=256)
def _fields_of_parameter(name: str) -> tuple[str, str]:
    return f"pname{name}", "pname" + _PUNCTUATION.sub("", name)


def _unbase64(text: str) -> bytes:
    # ccan/base64 ignores `=` at the end of the last four characters, however many there are.
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


def _integer(text: str) -> int | None:
    # As strtol(3) parses it; None if it does not parse the whole text.
    found = re.fullmatch(r"[ \t\n\v\f\r]*([+-]?)0*([0-9]{1,19})", text, re.ASCII)
    return value if found and (value := int(found[1] + found[2])) in _INT64 else None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # lightningd orders bytes, not characters


def _in_english(complaint: str) -> str:
    # lightningd escapes text from a rune before it puts it into JSON, which escapes it again.
    complaint = json.dumps(complaint, ensure_ascii=False)[1:-1]
    for short, long in _IN_ENGLISH.items():
        if complaint.startswith(short):
            return long + complaint.removeprefix(short)
    return complaint
