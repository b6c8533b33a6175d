"""Describes the gateway to lightningd as a plugin: manifest, options and `init`, with pyln-client's Plugin.

pyln-client's hook dispatch is not used: for each call it inspects the handler's signature and formats a stack trace,
which takes longer than everything else that a message needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyln.client import Plugin

HOOK = "custommsg"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of lightningd that sets one of the gateway's settings."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """The content of the manifest, in addition to the hook."""

    even_types: Sequence[int] = ()
    """Even types to accept; lightningd disconnects a peer that sends any other even type."""
    filters: Sequence[int] = ()
    """The types for which to call the hook; empty: all. Needs a node with hook filters (v25.12)."""
    options: Sequence[Option] = ()
    """Options that lightningd accepts and passes to the gateway."""


@dataclass(frozen=True, slots=True)
class Init:
    """The content of lightningd's `init` request."""

    rpc_file: Path
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Manifest:
    """Answers `getmanifest` and `init`: all calls of lightningd except hook calls."""

    def __init__(self, options: PluginOptions) -> None:
        self._written = bytearray()
        self.init: Init | None = None
        before = list(logging.getLogger().handlers)
        self._plugin = Plugin(autopatch=False, dynamic=True, custom_msgs=list(options.even_types))
        # pyln-client has added a handler that sends all log records to lightningd; the gateway's go to stderr.
        logging.getLogger().handlers[:] = before
        self._plugin.stdout = _Out(self._written)
        self._plugin.add_hook(HOOK, _never_called, filters=list(options.filters))
        self._plugin.add_subscription("connect", _never_called)
        self._plugin.add_subscription("disconnect", _never_called)
        self._plugin.add_subscription("shutdown", _never_called)
        for option in options.options:
            self._plugin.add_option(option.name, None, option.description)
        self._plugin.init()(self._take_init)

    def answer(self, frame: bytes) -> bytes:
        """Return the answer to a request that is not a hook call."""
        self._written.clear()
        self._plugin._multi_dispatch([frame, b""])  # as pyln-client's run() does for each message
        return bytes(self._written)

    def _take_init(self, options: dict[str, Any], configuration: dict[str, Any], **_: Any) -> None:
        self.init = Init(
            rpc_file=Path(configuration["lightning-dir"]) / configuration["rpc-file"],
            network=str(configuration.get("network", "")),
            options={name: value for name, value in options.items() if value is not None},
        )


class _Out:
    """Replaces stdout for pyln-client."""

    def __init__(self, written: bytearray) -> None:
        self.buffer = self
        self.write: Callable[[bytes], None] = written.extend

    def flush(self) -> None:
        """Do nothing."""


def _never_called(**_: Any) -> None:
    raise AssertionError("the channel answers hook calls and notifications itself")
