"""The parameters of a command, by position or by name, checked in lightningd's order and with its texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from custommsg_server.domain import wire
from custommsg_server.domain.errors import RelayError

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602


class RpcError(Exception):
    """A command failed.

    Args:
        code: as in common/jsonrpc_errors.h.
        message: lightningd's text.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a command.

    Args:
        name: its name, which is also the name of the command's argument.
        parse: makes its value of its name and its JSON; raises RpcError.
        required: a call without it fails.
    """

    name: str
    parse: Callable[[str, Any], Any]
    required: bool = True


def optional(name: str, parse: Callable[[str, Any], Any]) -> Param:
    """Make a parameter that a call may leave out."""
    return Param(name, parse, required=False)


def bind(params: Sequence[Param], given: object, *, extra: bool = False) -> dict[str, Any]:
    """Match the params of a request with the parameters of a command.

    Args:
        params: the parameters of the command, the required ones first.
        given: the `params` of the request.
        extra: more may be given than these. It is left out of the result.

    Raises:
        RpcError: INVALID_PARAMS.
    """
    values: dict[str, Any] = {}
    if isinstance(given, list):
        for param, value in zip(params, given, strict=False):
            if value is not None:  # by position, null means that a parameter is left out; by name it does not
                values[param.name] = param.parse(param.name, value)
        if len(given) > len(params) and not extra:
            raise RpcError(INVALID_PARAMS, f"too many parameters: got {len(given)}, expected {len(params)}")
    elif isinstance(given, Mapping):
        by_name = {param.name: param for param in params}
        for name, value in given.items():
            if name in by_name:
                values[name] = by_name[name].parse(name, value)
            elif not extra:
                raise RpcError(
                    INVALID_PARAMS,
                    f"unknown parameter: {name}, this may be caused by a failure to autodetect"
                    " key=value-style parameters. Please try using the -k flag and explicit key=value pairs"
                    " of parameters.",
                )
    else:
        raise RpcError(INVALID_PARAMS, "Expected array or object for params")
    for param in params:
        if param.required and param.name not in values:
            raise RpcError(INVALID_PARAMS, f"missing required parameter: {param.name}")
    return values


def token(value: object) -> str:
    """Write a value as it was in the request."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text(value: object) -> str:
    """Write a value as it was in the request, but a string without its quotes."""
    return value if isinstance(value, str) else token(value)


def bad_param(name: str, what: str, value: object) -> RpcError:
    """Make lightningd's error for an invalid parameter."""
    return RpcError(INVALID_PARAMS, f"{name}: {what}: invalid token '{token(value)}'")


def node_id(name: str, value: object, what: str = "should be a node id") -> wire.NodeId:
    """Read a node id: 66 hex digits, a point on secp256k1."""
    try:
        return wire.parse_node_id_hex(text(value))
    except RelayError:
        raise bad_param(name, what, value) from None


def string(name: str, value: object) -> str:
    """Read a string. lightningd accepts any JSON as one."""
    return text(value)


def boolean(name: str, value: object) -> bool:
    """Read true or false, with or without quotes."""
    if text(value) in ("true", "false"):
        return text(value) == "true"
    raise bad_param(name, "should be 'true' or 'false'", value)


def port(name: str, value: object) -> int:
    """Read the number of a TCP port, 1 to 65,535, with or without quotes."""
    digits = text(value)
    if not (digits.isascii() and digits.isdigit() and int(digits) <= wire.MAX_TYPE):
        raise bad_param(name, "should be a 16-bit integer", value)
    if int(digits) == 0:
        raise bad_param(name, "should be non-zero", value)
    return int(digits)


def number(name: str, value: object) -> int:
    """Read a number from 0 to 2^32-1, with or without quotes."""
    digits = text(value)
    if digits.isascii() and digits.isdigit() and int(digits) < 1 << 32:
        return int(digits)
    raise bad_param(name, "should be an integer", value)
