"""The message that a command is given: as a type with a payload, or whole."""

from __future__ import annotations

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


def content_of(
    type: int | None, text: str | None, hex: str | None, msg: str | None, *, even: bool
) -> Content:
    """Read the message from the options --type, --text, --hex and --msg; "-" stands for the standard input.

    Args:
        type: its type.
        text: its payload as text.
        hex: its payload in hex.
        msg: the whole message in hex.
        even: whether its type may be even.

    Raises:
        CycloptsError: the options do not fit together, or the type is even.
    """
    if (type is None) == (msg is None) or sum(given is not None for given in (text, hex, msg)) > 1:
        raise usage_error("Give the message either as --type with --text or --hex, or as --msg.")
    if msg is not None:
        msg = _hex(msg)
    elif hex is not None:
        msg = f"{type:04x}{_hex(hex)}"
    problem = None if even else even_type(type, msg)
    if problem is not None:
        raise usage_error(problem)
    return {"msg": msg} if msg is not None else {"type": type, "payload": _text(text or "")}


def _hex(argument: str) -> str:
    if argument != "-":
        return argument
    return sys.stdin.buffer.read(_STDIN_LIMIT).strip().decode("ascii", "replace")


def _text(argument: str) -> bytes:
    if argument == "-":
        return sys.stdin.buffer.read(_STDIN_LIMIT)
    return argument.encode("utf-8", "surrogateescape")  # bytes that are not UTF-8 stay as they were given
