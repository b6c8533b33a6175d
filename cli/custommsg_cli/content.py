"""The message that a command is given: as a type with a payload, or whole."""

from __future__ import annotations

import re
import sys
from typing import Final, TypedDict

from custommsg import MAX_MESSAGE_SIZE
from custommsg_cli.settings import even_type, usage_error

# The largest message in hex, and some white space around it.
_STDIN_LIMIT: Final = 2 * MAX_MESSAGE_SIZE + 1024


class Content(TypedDict, total=False):
    """The arguments of the client's methods that send."""

    type: int | None
    payload: bytes
    msg: str


def content_of(type: int | None, text: str | None, hex: str | None, msg: str | None) -> Content:
    """Read the message from the options --type, --text, --hex and --msg; "-" stands for the standard input.

    Args:
        type: its type.
        text: its payload as text.
        hex: its payload in hex.
        msg: the whole message in hex.

    Raises:
        CycloptsError: the options do not fit together.
    """
    if (type is None) == (msg is None) or sum(given is not None for given in (text, hex, msg)) > 1:
        raise usage_error("Give the message either as --type with --text or --hex, or as --msg.")
    if msg is not None:
        msg = _hex(msg)
    elif hex is not None:
        msg = f"{type:04x}{_hex(hex)}"
    return {"msg": msg} if msg is not None else {"type": type, "payload": _text(text or "")}


def type_of(content: Content) -> int | None:
    """Return the type of a message; None if it is invalid."""
    if "msg" not in content:
        return content["type"]
    head = content["msg"][:4]
    return int(head, 16) if re.fullmatch(r"[0-9a-fA-F]{4}", head, re.ASCII) else None


def even_problem(content: Content) -> str | None:
    """Return why a message is sent only with --even; None if its type is odd."""
    return even_type(type_of(content), None)


def _hex(argument: str) -> str:
    if argument != "-":
        return argument
    return sys.stdin.buffer.read(_STDIN_LIMIT).strip().decode("ascii", "replace")


def _text(argument: str) -> bytes:
    if argument == "-":
        return sys.stdin.buffer.read(_STDIN_LIMIT)
    return argument.encode("utf-8", "surrogateescape")  # bytes that are not UTF-8 stay as they were given
