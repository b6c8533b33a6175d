"""Describes us to lightningd as its plugin: the manifest, the options and `init`.

https://docs.corelightning.org/docs/a-day-in-the-life-of-a-plugin
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custommsg_server.node.lightningd.frames import END

HOOK = "custommsg"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of lightningd that sets one of our settings."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """What the manifest says, besides the hook."""

    even_types: Sequence[int] = ()
    """Even types to accept: else lightningd disconnects a peer that sends one."""
    filters: Sequence[int] = ()
    """The types to call the hook for; empty: all. Only for nodes that know hook filters (v25.12)."""
    options: Sequence[Option] = ()
    """Options that lightningd takes on its command line and hands to us."""


@dataclass(frozen=True, slots=True)
class Init:
    """What lightningd said in `init`."""

    rpc_file: Path
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Manifest:
    """Answers all calls of lightningd but those of the hook: `getmanifest`, `init`.

    Args:
        options: what the manifest says.
    """

    def __init__(self, options: PluginOptions) -> None:
        self._options = options
        self.init: Init | None = None

    def answer(self, frame: bytes) -> bytes:
        """Return the answer to a request that is not a hook call.

        Raises:
            ValueError: it is another request than lightningd makes of its plugins.
        """
        request = json.loads(frame)
        match request["method"]:
            case "getmanifest":
                result = self._manifest()
            case "init":
                self.init = _init_of(**request["params"])
                result = {}
            case method:
                raise ValueError(f"lightningd asked for {str(method)[:40]}, which is not in the manifest")
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + END

    def _manifest(self) -> dict[str, Any]:
        hook: dict[str, Any] = {"name": HOOK, "before": [], "after": []}
        if self._options.filters:  # nodes that do not know filters are told nothing of them
            hook["filters"] = list(self._options.filters)
        return {
            "options": [
                {"name": one.name, "type": "string", "description": one.description}
                for one in self._options.options
            ],
            "rpcmethods": [],
            "subscriptions": ["connect", "disconnect", "shutdown"],
            "hooks": [hook],
            "custommessages": list(self._options.even_types),
            "dynamic": True,
            "nonnumericids": True,
        }


def _init_of(options: Mapping[str, Any], configuration: Mapping[str, Any], **_: Any) -> Init:
    return Init(
        rpc_file=Path(configuration["lightning-dir"]) / configuration["rpc-file"],
        network=str(configuration.get("network", "")),
        options={name: value for name, value in options.items() if value is not None},
    )
