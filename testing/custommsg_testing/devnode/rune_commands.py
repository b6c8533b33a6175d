"""The commands `createrune`, `checkrune` and `blacklistrune` (lightningd/runes.c)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from custommsg_server.domain.narrowing import encode
from custommsg_server.domain.rune import Alternative, Restriction, Rune, Value, fields_of
from custommsg_testing.devnode import params as p
from custommsg_testing.devnode.params import INVALID_PARAMS, Param, RpcError, optional
from custommsg_testing.devnode.rune import derive, is_derived_from, parse_condition
from custommsg_testing.devnode.table import Call, Json, command

NOT_AUTHORIZED: Final = 1501
NOT_PERMITTED: Final = 1502
BLACKLISTED: Final = 1503

_READONLY: Final = (("method^list", "method^get", "method=summary"), ("method/listdatastore",))
_UNITS: Final = {
    "": 1.0,
    "sec": 1.0,
    "nsec": 1e-9,
    "usec": 1e-6,
    "msec": 1e-3,
    "min": 60.0,
    "hour": 3600.0,
    "day": 86_400.0,
}
_UNRESTRICTED: Final = (
    "WARNING: This rune has no restrictions! Anyone who has access to this rune could drain funds from your"
    " node. Be careful when giving this to apps that you don't trust. Consider using the restrictions parameter"
    " to only allow access to specific rpc methods."
)


def _rune(name: str, value: object) -> Rune:
    try:
        rune = Rune.parse(p.text(value))
    except ValueError:
        raise _bad(name, "should be base64 string") from None
    # lightningd reads octal and hexadecimal ids too, but makes only decimal ones.
    if not re.fullmatch(r"[0-9]{1,18}", rune.unique_id or "", re.ASCII):
        raise _bad(name, "should have valid numeric unique_id")
    return rune


def _bad(name: str, what: str) -> RpcError:
    # Not p.bad_param, which quotes the value: a damaged rune may still be a secret.
    return RpcError(INVALID_PARAMS, f"{name}: {what}: invalid token (see logs for details)")


def _restrictions(name: str, value: object) -> tuple[Restriction, ...]:
    if value == "readonly":
        return tuple(tuple(map(parse_condition, each)) for each in _READONLY)
    try:
        return tuple(_restriction(each) for each in (value if isinstance(value, list) else [value]))
    except ValueError:
        raise _bad(name, "not a valid restriction (should be array)") from None


def _restriction(value: object) -> Restriction:
    if not isinstance(value, list):
        raise ValueError("not an array")
    alternatives = tuple(parse_condition(p.text(one)) for one in value)
    if not all(one.field for one in alternatives):
        raise ValueError("a field name is empty")
    return alternatives


def _params(name: str, value: object) -> Mapping[str, Any] | list[Any]:
    if not isinstance(value, dict | list):
        raise _bad(name, "must be object or array")
    return value


@command(optional("rune", _rune), optional("restrictions", _restrictions))
def createrune(call: Call, rune: Rune | None = None, restrictions: tuple[Restriction, ...] = ()) -> Json:
    """Make a rune, or restrict a rune further."""
    call.checked()
    runes = call.node.runes
    if rune is None:
        start: tuple[Restriction, ...] = ((Alternative("", "=", runes.next_id()),),)
    else:
        start = rune.restrictions
    made = derive(runes.secret, (*start, *restrictions))
    warning = {} if len(made.restrictions) > 1 else {"warning_unrestricted_rune": _UNRESTRICTED}
    return {"rune": encode(made), "unique_id": made.unique_id, **warning}


@command(
    Param("rune", _rune),
    optional("nodeid", p.node_id),
    optional("method", p.string),
    optional("params", _params),
)
def checkrune(
    call: Call,
    rune: Rune,
    nodeid: bytes | None = None,
    method: str | None = None,
    params: Mapping[str, Any] | list[Any] | None = None,
) -> Json:
    """Say whether a rune permits a call; if it does, that was one use of it."""
    call.checked()
    runes = call.node.runes
    if int(rune.unique_id or 0) in runes.blacklist:
        raise RpcError(BLACKLISTED, "Not authorized: Blacklisted rune")
    if rune.version is not None:
        raise RpcError(NOT_AUTHORIZED, "Not authorized: Version mismatch")
    if not is_derived_from(rune, runes.secret):
        raise RpcError(NOT_AUTHORIZED, "Not authorized: Not derived from master")
    now = runes.clock()
    fields: dict[str, Value] = dict(_fields(method, params or {}, now))
    fields["id"] = nodeid.hex() if nodeid else None

    def complaint(one: Alternative) -> str | None:
        if one.field in ("rate", "per"):
            return _too_soon(one, now - runes.used.get(str(rune.unique_id), 0.0))
        return one.complaint(fields.get(one.field))

    if why := rune.complaint(complaint):
        raise RpcError(NOT_PERMITTED, f"Not permitted: {why}")
    runes.used[str(rune.unique_id)] = now
    return {"valid": True}


@command(optional("start", p.number), optional("end", p.number), optional("relist", p.boolean))
def blacklistrune(call: Call, start: int | None = None, end: int | None = None, relist: bool = False) -> Json:
    """Put runes on the blacklist by their ids, take them off it, or list it."""
    if end is not None and start is None:
        raise RpcError(INVALID_PARAMS, "Can not specify end without start")
    call.checked()
    blacklist = call.node.runes.blacklist
    if start is not None:
        ids = range(start, (start if end is None else end) + 1)
        (blacklist.difference_update if relist else blacklist.update)(ids)
    return {"blacklist": [{"start": first, "end": last} for first, last in _ranges(sorted(blacklist))]}


COMMANDS: Final = (createrune, checkrune, blacklistrune)


def _fields(method: str | None, params: Mapping[str, Any] | list[Any], now: float) -> Mapping[str, Value]:
    if isinstance(params, list):
        by_place = {f"parr{place}": _value(one) for place, one in enumerate(params)}
        return {**fields_of(method, {}, now), **by_place, "pnum": len(params)}
    return fields_of(method, {name: _value(one) for name, one in params.items()}, now)


def _value(given: object) -> str | int:
    # lightningd reads numbers of 64 bits as such, and all others as text.
    return given if type(given) is int and -(1 << 63) <= given < 1 << 63 else p.text(given)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _too_soon(limit: Alternative, since_last: float) -> str | None:
    if limit.condition != "=":
        return f"{limit.field} operator must be ="
    found = re.fullmatch(r"[ \t\n\v\f\r]*\+?0*([0-9]{1,10})(.*)", limit.value, re.ASCII | re.DOTALL)
    number = int(found[1]) if found else 0
    is_rate = limit.field == "rate"
    if found is None or not 0 < number < (1 << 32) - 1 or (is_rate and found[2]):
        return f"malformed {limit.field}"
    if found[2] not in _UNITS:
        return "malformed suffix"
    least = 60.0 / number if is_rate else number * _UNITS[found[2]]
    return "too soon" if since_last < least else None
