"""What is the same for every sub-command, and how arguments of more than one of them are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cyclopts import CycloptsError, Parameter, Token

from custommsg import MAX_TYPE, sync

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of every sub-command."""

    address: str
    timeout: float
    json: bool
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    rune: str | None = field(default=None, repr=False)

    def connect(self) -> sync.Client:
        """Make the client.

        Raises:
            CycloptsError: the address, the timeout, the rune or a file is invalid.
        """
        try:
            return sync.connect(
                self.address,
                timeout=self.timeout,
                ca=self.ca,
                cert=self.cert,
                key=self.key,
                rune=self.rune,
            )
        except OSError as error:
            raise usage_error(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise usage_error(str(error)) from None


Global = Annotated[Settings, Parameter(parse=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def usage_error(text: str) -> CycloptsError:
    """Make an error about how the command was used."""
    return CycloptsError(msg=text[:1].upper() + text[1:])


def message_type(text: str) -> int:
    """Read a message type, decimal or 0x hex.

    Raises:
        ValueError: it is invalid.
    """
    if not _NUMBER.fullmatch(text) or (number := int(text, 0 if text[1:2] in "xX" else 10)) > MAX_TYPE:
        raise ValueError(f"{text!r} is not a message type: give a number from 0 to 65535, or 0x0 to 0xffff")
    return number


def even_type(type: int | None, msg: str | None) -> str | None:
    """Return why a message is sent only with --even; None if its type is odd.

    Args:
        type: its type, if it is given apart.
        msg: the whole message in hex, if not; an invalid one has no type.
    """
    if type is None and msg is not None and re.match(r"[0-9a-fA-F]{4}", msg, re.ASCII):
        type = int(msg[:4], 16)
    if type is None or type % 2:
        return None
    return (
        f"Type {type} is even: a peer that does not know it disconnects (BOLT 1: it's ok to be odd). Nothing was sent."
        " To send it all the same, add --even."
    )


def type_argument(_: object, tokens: Sequence[Token]) -> int:
    """Convert the argument of --type."""
    return message_type(tokens[0].value)


def types_argument(_: object, tokens: Sequence[Token]) -> list[int | range]:
    """Convert the arguments of a --type that also takes ranges."""
    return [_type_or_range(token.value) for token in tokens]


def _type_or_range(text: str) -> int | range:
    first, dash, last = text.partition("-")
    if not dash:
        return message_type(text)
    try:
        types = range(message_type(first), message_type(last) + 1)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a type range: give the first and the last type, as in 40000-40009"
        ) from None
    if not types:
        raise ValueError(f"the type range {text!r} ends before it begins")
    return types
