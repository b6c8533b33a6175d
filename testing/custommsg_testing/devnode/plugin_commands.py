"""The command `plugin`, and the commands that plugins have registered (lightningd/plugin_control.c)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from custommsg_testing.devnode import params as p
from custommsg_testing.devnode.params import INVALID_PARAMS, Param, RpcError
from custommsg_testing.devnode.plugin import Plugin, PluginGoneError
from custommsg_testing.devnode.plugins import NoSuchPluginError, PluginError
from custommsg_testing.devnode.table import Call, Command, Json, command

PLUGIN_ERROR: Final = -3
PLUGIN_TERMINATED: Final = -4

_SUBCOMMAND: Final = Param("subcommand", p.string)


async def _start(call: Call, given: Any) -> Json:
    bound = p.bind([_SUBCOMMAND, Param("plugin", p.string)], given, extra=True)
    if isinstance(given, list) and len(given) > len(bound):
        raise RpcError(INVALID_PARAMS, "Extra parameters must be in object")
    options = {name: given[name] for name in given if name not in bound} if isinstance(given, dict) else {}
    path = Path(bound["plugin"].partition("\0")[0])  # in C, the path ends there
    if not os.access(path, os.X_OK):
        path = call.node.network_dir.parent / "plugins" / path
    try:
        path.stat()
        if not os.access(path, os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise RpcError(INVALID_PARAMS, f"{path} is not executable: {error.strerror}") from None
    call.checked()
    try:
        await call.node.plugins.start(path, options, request_id=call.request_id)
    except NoSuchPluginError as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None
    except PluginError as error:
        raise RpcError(PLUGIN_ERROR, str(error)) from None
    return _list(call, "start")


async def _stop(call: Call, given: Any) -> Json:
    name = p.bind([_SUBCOMMAND, Param("plugin", p.string)], given)["plugin"]
    try:
        plugin = call.node.plugins.find(name)
        call.checked()
        await call.node.plugins.stop(plugin)
    except PluginError as error:
        raise RpcError(INVALID_PARAMS, str(error)) from None
    return {"command": "stop", "result": f"Successfully stopped {plugin.name}."}


async def _list_plugins(call: Call, given: Any) -> Json:
    p.bind([_SUBCOMMAND], given)
    call.checked()
    return _list(call, "list")


_SUBCOMMANDS: Final = {"start": _start, "stop": _stop, "list": _list_plugins}


@command(raw=True)
async def plugin(call: Call, given: Any) -> Json:
    """Start, stop or list plugins. lightningd's `startdir` and `rescan` are missing here."""
    subcommand = p.bind([_SUBCOMMAND], given, extra=True)["subcommand"]
    if subcommand not in _SUBCOMMANDS:
        raise RpcError(INVALID_PARAMS, f"Unknown subcommand '{subcommand}'")
    return await _SUBCOMMANDS[subcommand](call, given)


COMMANDS: Final = (plugin,)


def forwarded(plugin: Plugin, method: str) -> Command:
    """Return the command that passes a call on to the plugin that has registered it."""

    async def run(call: Call, given: Any) -> Json:
        call.checked()
        try:
            response = await plugin.call(method, given, call.request_id)
        except PluginGoneError:
            raise RpcError(PLUGIN_TERMINATED, "Plugin terminated before replying to RPC call.") from None
        if isinstance(error := response.get("error"), dict):
            raise RpcError(error.get("code", PLUGIN_ERROR), str(error.get("message")))
        result: Json = response.get("result") or {}
        return result

    return Command(method, None, run)


def _list(call: Call, subcommand: str) -> Json:
    plugins = [
        {
            "name": str(plugin.path),
            "active": plugin.active,
            "dynamic": plugin.manifest is not None and plugin.manifest.dynamic,
        }
        for plugin in call.node.plugins
    ]
    return {"command": subcommand, "plugins": plugins}
