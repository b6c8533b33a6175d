"""Has lightningd run our script as a plugin, whose stdin and stdout lead to our socket, whenever it does not run.

lightningd may run in another container, which has only a shell and socat: so the script has a few lines, and all
the rest is here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from custommsg_server.domain.errors import RelayError
from custommsg_server.node.lightningd import pipe
from custommsg_server.node.lightningd.channel import Channel, Intake
from custommsg_server.node.lightningd.manifest import Init, Manifest, PluginOptions

log = structlog.get_logger()

RETRY = 5.0
"""Seconds after which making the socket and the script is tried again."""

SCRIPT = """\
#!/bin/sh
# Written by custommsg-server: joins lightningd's plugin channel to the gateway's socket.
command -v socat >/dev/null 2>&1 && exec socat STDIO UNIX-CONNECT:{socket}
exec {python} {pipe} {socket}
"""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the socket and the script are. lightningd may see the same files under other paths."""

    socket: Path
    script: Path
    socket_for_node: str
    script_for_node: str

    @classmethod
    def within(cls, folder: Path, folder_for_node: str | None) -> Paths:
        """Put them into one folder.

        Args:
            folder: its path for us.
            folder_for_node: its path for lightningd, if that is another one.
        """
        for_node = folder_for_node or str(folder)
        socket, script = "plugin.sock", "custommsg-attach"
        return cls(folder / socket, folder / script, f"{for_node}/{socket}", f"{for_node}/{script}")


class Attachment:
    """Keeps one lightningd attached.

    Args:
        paths: where the socket and the script are.
        intake: keeps what arrives.
        options: returns what the manifest says; called when the node is known.
        start_plugin: asks lightningd to run the script; raises RelayError.
    """

    def __init__(
        self,
        paths: Paths,
        intake: Intake,
        options: Callable[[], PluginOptions],
        start_plugin: Callable[[str], Awaitable[None]],
    ) -> None:
        self._paths = paths
        self._intake = intake
        self._options = options
        self._start_plugin = start_plugin
        self._node_is_up = False
        self._wake = asyncio.Event()
        self._channels: set[Channel] = set()
        self._attached: Channel | None = None
        self._is_attached = asyncio.Event()

    @property
    def is_attached(self) -> bool:
        """Whether lightningd hands messages over now."""
        return self._attached is not None

    async def attached(self) -> None:
        """Wait until lightningd hands messages over."""
        await self._is_attached.wait()

    def node_changed(self, is_up: bool) -> None:
        """Take note of the state of the link to the node."""
        self._node_is_up = is_up
        self._wake.set()

    async def run(self) -> None:
        """Listen, and have lightningd start the script whenever it is not running, until cancelled."""
        logged = ""
        while True:
            try:
                await self._listen_and_attach()
            except OSError as error:
                if str(error) != logged:
                    log.error(
                        "cannot attach lightningd: nothing is received", why=str(error), hint=self._hint()
                    )
                logged = str(error)
                await asyncio.sleep(RETRY)

    async def _listen_and_attach(self) -> None:
        with _only_one(self._paths.socket.parent):
            await self._listen_and_attach_alone()

    async def _listen_and_attach_alone(self) -> None:
        server = await self._listen()
        try:
            self._write_script()
            await self._keep_attached()
        finally:
            server.close()
            self._attached = None  # so that closing it is not reported as a loss
            for channel in list(self._channels):
                channel.close()
            with suppress(OSError):
                self._paths.socket.unlink()

    async def _keep_attached(self) -> None:
        delay, logged = 0.1, ""
        while True:
            self._wake.clear()
            if not self._node_is_up or self._attached is not None:
                delay, logged = 0.1, ""
                await self._wake.wait()
                continue
            try:
                await self._start_plugin(self._paths.script_for_node)
            except RelayError as error:
                if error.message != logged:
                    log.warning("lightningd did not start the plugin", why=error.message, hint=self._hint())
                logged = error.message
                delay = min(delay * 2, 5.0)
            # `plugin start` returns when the plugin is initialised, but it may have ended since.
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _listen(self) -> asyncio.Server:
        path = self._paths.socket
        with suppress(FileNotFoundError):
            path.unlink()
        # lightningd may run as another user of our group; nobody else may write to the inbox.
        before = os.umask(0o117)
        try:
            return await asyncio.get_running_loop().create_unix_server(self._make_channel, path)
        finally:
            os.umask(before)

    def _write_script(self) -> None:
        path = self._paths.script
        path.parent.mkdir(parents=True, exist_ok=True)
        text = SCRIPT.format(
            socket=shlex.quote(self._paths.socket_for_node),
            python=shlex.quote(sys.executable),
            pipe=shlex.quote(pipe.__file__),
        )
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(path)  # in one step: lightningd may be reading the old one

    def _make_channel(self) -> Channel:
        channel = Channel(Manifest(self._options()), self._initialised, self._lost)
        self._channels.add(channel)
        return channel

    async def _initialised(self, channel: Channel, init: Init) -> Intake:
        previous, self._attached = self._attached, channel
        if previous is not None:
            previous.close()  # it is left from a lightningd that has ended, or messages would come twice
        self._is_attached.set()
        log.info("lightningd is attached", lightning_dir=str(init.rpc_file.parent))
        self._wake.set()
        return self._intake

    def _lost(self, channel: Channel) -> None:
        self._channels.discard(channel)
        if self._attached is channel:
            self._attached = None
            self._is_attached.clear()
            log.warning("lightningd is detached; messages that peers send now are not received")
            self._wake.set()

    def _hint(self) -> str:
        return (
            f"lightningd must be able to run {self._paths.script_for_node} and to connect to"
            f" {self._paths.socket_for_node}; it needs socat or this Python for that."
        )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other gateways away from a folder: a second one would take the socket away from the first.

    Raises:
        OSError: another gateway uses it, or the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "attach.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another gateway uses {folder} for its plugin; set another plugin_dir") from None
        yield
