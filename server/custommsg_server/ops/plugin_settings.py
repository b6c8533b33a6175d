"""The settings of a gateway that lightningd starts as its plugin: lightningd's options, `custommsg-...`."""

from __future__ import annotations

import re
from typing import Final

from custommsg_server import settings as config
from custommsg_server.node.lightningd.manifest import Init, Option, PluginOptions
from custommsg_server.settings import Settings

PREFIX: Final = "custommsg-"
_BEFORE_INIT: Final = {"accept_even_types", "receive_types", "ignore_types"}
"""The manifest needs these, before lightningd sends the values of its options."""
_FROM_NODE: Final = {"rpc_file", "lightning_dir", "network", "receive", "plugin_dir", "plugin_dir_for_node"}
"""lightningd sends these itself, or they have no effect."""
_MAX_FILTERS: Final = 1000
"""Types in a hook filter at most: for more, dropping other messages here is cheaper than a long list."""
_FILTERS_SINCE: Final = (25, 12)


def manifest(settings: Settings, node_version: str, with_options: bool = True) -> PluginOptions:
    """Return the options of the manifest.

    Args:
        settings: the settings that are known before lightningd's options are.
        node_version: the version in getinfo, e.g. "v26.06.6"; "" if not known.
        with_options: lightningd has started the gateway, so its options are our settings.
    """
    wanted = settings.received_types
    filters = list(wanted) if len(wanted) <= _MAX_FILTERS and _knows_filters(node_version) else []
    names = [name for name in Settings.model_fields if name not in _BEFORE_INIT | _FROM_NODE]
    options = [Option(_option(name), str(Settings.model_fields[name].description)) for name in names]
    return PluginOptions(
        even_types=list(settings.even_types), filters=filters, options=options if with_options else []
    )


def load(init: Init) -> Settings:
    """Read the settings from the `init` request of lightningd. Raises SettingsError: one of them is invalid."""
    known = {_option(name): name for name in Settings.model_fields}
    flags = {known[name]: value for name, value in init.options.items() if name in known}
    return config.load({**flags, "rpc_file": init.rpc_file})


def _option(name: str) -> str:
    return PREFIX + name.replace("_", "-")


def _knows_filters(node_version: str) -> bool:
    found = re.match(r"v?(\d+)\.(\d+)", node_version)
    return found is not None and (int(found[1]), int(found[2])) >= _FILTERS_SINCE
