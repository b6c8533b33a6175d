"""The plugins of a node: they are started and stopped, get notifications, and are called for each custom message.

As in lightningd's plugin.c and plugin_hook.c, a hook call is written without waiting for the answer to the last one.
Any answer but `continue` would have killed lightningd.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from custommsg_server.domain import wire
from custommsg_testing.devnode.bolt1 import FEATURES
from custommsg_testing.devnode.jsonframes import encode
from custommsg_testing.devnode.manifest import Manifest, ManifestError, parse_manifest
from custommsg_testing.devnode.plugin import Plugin, PluginGoneError, Response

logger = logging.getLogger(__name__)

STARTUP_TIMEOUT: Final = 120.0
"""Seconds that a plugin may take to answer getmanifest, and as many to answer init."""

SHUTDOWN_TIMEOUT: Final = 30.0
"""Seconds that a plugin may take to exit if it has subscribed to `shutdown`."""


class PluginError(Exception):
    """A plugin cannot be started or stopped. The message is lightningd's."""


class NoSuchPluginError(PluginError):
    """There is no plugin of this name, it is not executable, or it runs already."""


@dataclass(frozen=True, slots=True)
class Host:
    """What plugins are told of their node.

    Args:
        network_dir: their working directory, in which the RPC socket is.
        network: the name of the network.
        version: the version of the node.
        options: values for their options, by name.
        commands: the names of the node's own commands, which no plugin may register.
        record_death: called when an answer would have killed lightningd.
        shutdown_timeout: see SHUTDOWN_TIMEOUT.
    """

    network_dir: Path
    network: str
    version: str
    options: Mapping[str, object]
    commands: Collection[str]
    record_death: Callable[[str], None]
    shutdown_timeout: float = SHUTDOWN_TIMEOUT


class Plugins:
    """The plugins of a node, in the order in which they were started.

    Args:
        host: what they are told of the node.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._plugins: list[Plugin] = []
        self._launched: set[Plugin] = set()
        self._stopping = False

    def __iter__(self) -> Iterator[Plugin]:
        return iter(list(self._plugins))

    async def start_all(self, paths: Sequence[Path]) -> None:
        """Start the plugins that were given to the node. One that fails is logged and left out.

        Raises:
            NoSuchPluginError: one of them is not executable.
        """
        for path in paths:
            try:
                await self.start(path, startup=True)
            except NoSuchPluginError:
                raise
            except PluginError as error:
                logger.warning("plugin not started: %s", error)

    async def start(
        self,
        path: Path,
        options: Mapping[str, object] | None = None,
        *,
        startup: bool = False,
        request_id: object = None,
    ) -> Plugin:
        """Start a plugin, and call getmanifest and init.

        Args:
            path: the executable.
            options: values for its options beside those of the node, by name. An unknown name is an error.
            startup: it starts with the node, so that it need not be dynamic.
            request_id: the id of the command that starts it.

        Raises:
            NoSuchPluginError: it is not executable, or runs already.
            PluginError: it exits, is too slow, or gives an answer that lightningd would refuse.
        """
        path = _canonical(path)
        if any(plugin.path == path for plugin in self._plugins):
            raise NoSuchPluginError(f"{path}: already registered")
        plugin = Plugin(path, self._gone)
        self._plugins.append(plugin)
        try:
            await plugin.launch(self._host.network_dir, self._host.version)
        except OSError as error:
            self._plugins.remove(plugin)
            raise PluginError(f"{path}: opening pipe: {error.strerror}") from None
        self._launched = {each for each in self._launched if not each.exited.is_set()} | {plugin}
        try:
            async with asyncio.timeout(STARTUP_TIMEOUT):
                await self._introduce(plugin, options or {}, startup=startup, request_id=request_id)
        except ManifestError as error:
            plugin.kill(logging.WARNING, str(error))
        except TimeoutError:
            plugin.kill(logging.WARNING, f"timed out {plugin.state}")
        except PluginGoneError:
            pass
        except asyncio.CancelledError:
            plugin.kill(logging.INFO, "the node stops")
            raise
        if plugin.why_gone:
            raise PluginError(f"{path}: {plugin.why_gone}")
        return plugin

    async def stop(self, plugin: Plugin) -> None:
        """Stop a plugin. If it has subscribed to `shutdown`, it may take its time.

        Raises:
            PluginError: it is not dynamic.
        """
        assert plugin.manifest is not None
        if not plugin.manifest.dynamic:
            raise PluginError(f"{plugin.path} cannot be managed when lightningd is up")
        await self._shut_down([plugin])

    async def stop_all(self) -> None:
        """Stop all plugins, because the node stops."""
        self._stopping = True
        for plugin in self._plugins:
            plugin.forget_calls()
        await self._shut_down(list(self._plugins))
        await self._reap()

    async def kill_all(self) -> None:
        """Kill all plugins, without a notification."""
        self._stopping = True
        for plugin in list(self._plugins):
            plugin.kill(logging.DEBUG, "the node was killed")
        await self._reap()

    def find(self, name: str) -> Plugin:
        """Return the plugin with this path or file name.

        Raises:
            NoSuchPluginError: there is no such plugin.
        """
        for plugin in self._plugins:
            if plugin.name == name if "/" not in name else plugin.path == _canonical(Path(name)):
                return plugin
        raise NoSuchPluginError(f"Could not find plugin {name}")

    def find_method(self, name: str) -> Plugin | None:
        """Return the plugin that has registered this command, if there is one."""
        for plugin in self._plugins:
            if plugin.active and plugin.manifest is not None and name in plugin.manifest.rpcmethods:
                return plugin
        return None

    def accepts(self, number: int) -> bool:
        """Say whether a plugin has declared this even type of custom messages."""
        return any(
            plugin.active and plugin.manifest is not None and number in plugin.manifest.custommessages
            for plugin in self._plugins
        )

    def notify(self, topic: str, content: Mapping[str, Any]) -> None:
        """Send a notification to the plugins that have subscribed to its topic."""
        if self._plugins and not self._stopping:
            encoded = encode(content)[:-2]
            for plugin in self._plugins:
                plugin.notify(topic, encoded)

    def message(self, peer_id: bytes, message: bytes) -> Awaitable[None] | None:
        """Pass a custom message to the plugins that want it.

        Returns:
            If the plugins are too slow: what to wait for before the next message.
        """
        if not self._plugins or self._stopping:
            return None
        peer, payload = peer_id.hex().encode(), message.hex().encode()
        for plugin in self._plugins:
            plugin.notify("custommsg", b'{"peer_id":"%b","payload":"%b"}' % (peer, payload))
        number = wire.message_type(message) if len(message) >= wire.MIN_MESSAGE_SIZE else -1
        chain = [p for p in self._plugins if p.active and p.manifest and p.manifest.wants_message(number)]
        self._call_hook(chain, b'{"payload":"%b","peer_id":"%b"}' % (payload, peer))
        return self._drain() if any(plugin.busy for plugin in self._plugins) else None

    def _call_hook(self, chain: list[Plugin], params: bytes) -> None:
        if chain:
            # The params are only kept for the next plugin of the chain, so that the last one's calls need no memory.
            again = params if len(chain) > 1 else b""
            chain[0].request("custommsg", params, partial(self._hook_answered, chain, again))

    def _hook_answered(self, chain: list[Plugin], params: bytes, response: Response | None) -> None:
        if response is not None:
            result = response.get("result")
            if not isinstance(result, dict) or result.get("result") != "continue":
                self._host.record_death(
                    "real lightningd would have crashed here: plugin"
                    f" {chain[0].name} answered the custommsg hook with {encode(response)[:200]!r}"
                )
        self._call_hook(chain[1:], params)

    async def _drain(self) -> None:
        for plugin in list(self._plugins):
            await plugin.drain()

    async def _introduce(
        self, plugin: Plugin, options: Mapping[str, object], *, startup: bool, request_id: object
    ) -> None:
        response = await plugin.call("getmanifest", {"allow-deprecated-apis": False}, request_id)
        manifest = parse_manifest(response)
        if manifest.disabled is not None:
            plugin.kill(logging.INFO, f"disabled itself: {manifest.disabled}")
            return
        self._check_methods(manifest)
        values = self._values(manifest, options)
        if not startup and not manifest.dynamic:
            plugin.kill(logging.INFO, "Not a dynamic plugin")
            return
        plugin.manifest = manifest
        plugin.state = "before replying to init"
        configuration = {
            "lightning-dir": str(self._host.network_dir),
            "rpc-file": "lightning-rpc",
            "startup": startup,
            "network": self._host.network,
            "feature_set": {"init": FEATURES.hex(), "node": "", "channel": "", "invoice": ""},
        }
        response = await plugin.call("init", {"options": values, "configuration": configuration})
        result = response.get("result")
        if isinstance(result, dict) and "disable" in result:
            plugin.kill(logging.DEBUG, f"disabled itself at init: {result['disable']}")
            return
        plugin.state = "during normal operation"
        plugin.active = True

    def _check_methods(self, manifest: Manifest) -> None:
        for name in manifest.rpcmethods:
            if name in self._host.commands or self.find_method(name) is not None:
                raise ManifestError(
                    f'Could not register method "{name}", a method with that name is already registered'
                )

    def _values(self, manifest: Manifest, given: Mapping[str, object]) -> dict[str, object]:
        for name in given:
            if name not in manifest.options:
                raise ManifestError(f"unknown parameter {name}")
        values = {}
        for name, option in manifest.options.items():
            value = given.get(name, self._host.options.get(name, option.default))
            if value is not None:
                values[name] = option.value(value)
        return values

    async def _shut_down(self, plugins: Sequence[Plugin]) -> None:
        asked = []
        for plugin in plugins:
            if plugin.active and plugin.manifest is not None and plugin.manifest.wants("shutdown"):
                plugin.notify("shutdown", b"{}")
                asked.append(plugin)
            else:
                plugin.kill(logging.INFO, "stopped by lightningd via RPC")
        if asked:
            waits = [asyncio.create_task(plugin.exited.wait()) for plugin in asked]
            _, late = await asyncio.wait(waits, timeout=self._host.shutdown_timeout)
            for task in late:
                task.cancel()
            for plugin in asked:
                if not plugin.exited.is_set():
                    plugin.kill(logging.WARNING, "Timeout on shutdown: killing anyway")
        for plugin in plugins:
            await plugin.exited.wait()

    async def _reap(self) -> None:
        for plugin in list(self._launched):
            await plugin.exited.wait()

    def _gone(self, plugin: Plugin) -> None:
        if plugin in self._plugins:
            self._plugins.remove(plugin)


def _canonical(path: Path) -> Path:
    return path.resolve()
