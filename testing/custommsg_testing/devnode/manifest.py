"""A plugin's manifest, its answer to getmanifest, checked as lightningd/plugin.c does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from custommsg_testing.devnode.params import token

HOOKS: Final = frozenset(
    {
        "commitment_revocation",
        "custommsg",
        "db_write",
        "htlc_accepted",
        "invoice_payment",
        "onion_message_recv",
        "onion_message_recv_secret",
        "openchannel",
        "openchannel2",
        "openchannel2_changed",
        "openchannel2_sign",
        "peer_connected",
        "rbf_channel",
        "recover",
        "rpc_command",
    }
)
"""The hooks that lightningd has. This node calls one of them, custommsg."""

_OPTION_TYPES: Final = ("string", "string-conceal", "int", "bool", "flag")
_OPTION_NAME: Final = re.compile("[0-9a-z_-]*")


class ManifestError(Exception):
    """The manifest is refused. The message is lightningd's."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the plugin, which the node gives it a value for.

    Args:
        name: without dashes.
        type: one of string, string-conceal, int, bool, flag.
        default: its value if the node has none for it. None: it has no value then.
        multi: its value is a list.
    """

    name: str
    type: str
    default: object = None
    multi: bool = False

    def value(self, given: object) -> object:
        """Return the value as init passes it on.

        Raises:
            ManifestError: `given` is not of the option's type.
        """
        if self.multi:
            return [self._one(each) for each in (given if isinstance(given, list) else [given])]
        return self._one(given)

    def _one(self, given: object) -> object:
        text = given if isinstance(given, str) else token(given)
        if self.type == "int":
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise ManifestError(f"'{text}' is not a number")
            return int(text)
        if self.type in ("bool", "flag"):
            if text not in ("true", "false"):
                raise ManifestError(f"Invalid argument '{text}'")
            return text == "true"
        return text


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a plugin's manifest that this node uses.

    Args:
        options: by name.
        rpcmethods: the names of the commands that it adds.
        subscriptions: the topics of the notifications that it wants; `*` is all of them.
        hooks: the names of the hooks that it wants to be called.
        filters: the types for which the custommsg hook is called. None: all types.
        custommessages: the even types of messages that peers may send.
        dynamic: it can be started and stopped while the node runs.
        disabled: why it does not want to run. None: it does.
    """

    options: Mapping[str, Option]
    rpcmethods: tuple[str, ...]
    subscriptions: frozenset[str]
    hooks: frozenset[str]
    filters: frozenset[int] | None
    custommessages: frozenset[int]
    dynamic: bool
    disabled: str | None

    def wants_message(self, number: int) -> bool:
        """Say whether the custommsg hook is to be called for this type."""
        return "custommsg" in self.hooks and (self.filters is None or number in self.filters)

    def wants(self, topic: str) -> bool:
        """Say whether the plugin has subscribed to this notification."""
        return topic in self.subscriptions or "*" in self.subscriptions


def parse_manifest(response: Mapping[str, Any]) -> Manifest:
    """Read the whole response to getmanifest.

    Raises:
        ManifestError: lightningd would refuse it.
    """
    result = response.get("result")
    if not isinstance(result, dict):
        raise ManifestError(f"Invalid/missing result tok in '{token(response)}'")
    if "disable" in result:
        return Manifest({}, (), frozenset(), frozenset(), None, frozenset(), False, str(result["disable"]))
    if result.get("nonnumericids", True) is not True:
        raise ManifestError("Plugin does not allow nonnumericids")
    hooks, filters = _hooks(result.get("hooks", []))
    return Manifest(
        options=_options(result),
        rpcmethods=_rpcmethods(result),
        subscriptions=frozenset(_strings(result, "subscriptions")),
        hooks=hooks,
        filters=filters,
        custommessages=_custommessages(result.get("custommessages", [])),
        dynamic=_boolean(result, "dynamic", "getmanifest"),
        disabled=None,
    )


def _boolean(holder: Mapping[str, Any], name: str, whose: str) -> bool:
    value = holder.get(name, False)
    if not isinstance(value, bool):
        raise ManifestError(f'{whose}: invalid "{name}" field {token(value)}')
    return value


def _strings(result: Mapping[str, Any], name: str) -> list[str]:
    values = result.get(name, [])
    if not isinstance(values, list):
        raise ManifestError(f'"result.{name}" is not an array')
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise ManifestError(f"result.{name}[{at}] is not a string: '{token(value)}'")
    return values


def _options(result: Mapping[str, Any]) -> dict[str, Option]:
    if "options" not in result:
        raise ManifestError('"result.options" was not found in the manifest')
    if not isinstance(result["options"], list):
        raise ManifestError('"result.options" is not an array')
    options = {}
    for given in result["options"]:
        if not isinstance(given, dict) or not {"name", "type", "description"} <= given.keys():
            raise ManifestError('An option is missing either "name", "description" or "type"')
        name = str(given["name"])
        if not _OPTION_NAME.fullmatch(name):
            raise ManifestError('Option "name" must be lowercase alphanumeric, plus _ or -\'')
        if name in options:
            raise ManifestError(f'Option "{name}" already registered')
        if given["type"] not in _OPTION_TYPES:
            raise ManifestError('Only "string", "int", "bool", and "flag" options are supported')
        multi = _boolean(given, "multi", f"--{name}")
        option = Option(name, given["type"], given.get("default"), multi)
        if option.default is not None:
            option.value(option.default)
        options[name] = option
    return options


def _rpcmethods(result: Mapping[str, Any]) -> tuple[str, ...]:
    if "rpcmethods" not in result:
        raise ManifestError('"result.rpcmethods" missing')
    if not isinstance(result["rpcmethods"], list):
        raise ManifestError('"result.rpcmethods" is not an array')
    for method in result["rpcmethods"]:
        if not isinstance(method, dict) or not isinstance(method.get("name"), str):
            raise ManifestError(f'rpcmethod does not have a string "name": {token(method)}')
        if not isinstance(method.get("usage"), str):
            raise ManifestError('"usage" not provided by plugin')
    return tuple(method["name"] for method in result["rpcmethods"])


def _hooks(given: object) -> tuple[frozenset[str], frozenset[int] | None]:
    names: set[str] = set()
    filters = None
    for hook in given if isinstance(given, list) else []:
        if isinstance(hook, dict) and "name" not in hook:
            raise ManifestError(f"no name in hook obj {token(hook)}")
        name = str(hook["name"] if isinstance(hook, dict) else hook)
        if name not in HOOKS:
            raise ManifestError(f"Unknown hook name {name}")
        if name in names:
            raise ManifestError(f"Registered for hook {name} multiple times")
        names.add(name)
        if isinstance(hook, dict) and "filters" in hook:
            wanted = _filters(name, hook["filters"])
            if name == "custommsg":
                filters = wanted
    return frozenset(names), filters


def _filters(name: str, given: object) -> frozenset[int]:
    if name == "rpc_command":
        return frozenset()
    if name != "custommsg":
        raise ManifestError(f"Hook {name} does not allow filters")
    if not isinstance(given, list):
        raise ManifestError("filters token must be an array")
    for value in given:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ManifestError(f"filters must be array of unsigned integers, not '{token(value)}'")
    return frozenset(given)


def _custommessages(given: object) -> frozenset[int]:
    if not isinstance(given, list):
        raise ManifestError(f"custommessages must be array, not '{token(given)}'")
    for at, value in enumerate(given):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFF:
            raise ManifestError(f"custommessages {at} not a u16: '{token(value)}'")
    return frozenset(given)
