"""Gets lightningd to run our script, whose stdin and stdout lead to our socket, and keeps it that way.

lightningd may run in another container, with nothing in it but a shell and socat: so what it runs is a script of
a few lines, and all the rest is here.
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
"""Seconds until it is tried again to make the socket and the script."""

SCRIPT = """\
#!/bin/sh
# Written by custommsg-server: joins lightningd's plugin channel to the gateway's socket.
command -v socat >/dev/null 2>&1 && exec socat STDIO UNIX-CONNECT:{socket}
exec {python} {pipe} {socket}
"""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the two sides meet. lightningd may see the same files under other names."""

    socket: Path
    script: Path
    socket_for_node: str
    script_for_node: str

    @classmethod
    def within(cls, folder: Path, folder_for_node: str | None) -> Paths:
        """Put them into one folder.

        Args:
            folder: as we see it.
            folder_for_node: as lightningd sees it, if that is another path.
        """
        for_node = folder_for_node or str(folder)
        socket, script = "plugin.sock", "custommsg-attach"
        return cls(folder / socket, folder / script, f"{for_node}/{socket}", f"{for_node}/{script}")


class Attachment:
    """Keeps one lightningd attached.

    Args:
        paths: where the two sides meet.
        intake: keeps what arrives.
        options: says what the manifest tells the node, once it is known which node it is.
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
        """Take the state of the link to the node."""
        self._node_is_up = is_up
        self._wake.set()

    async def run(self) -> None:
        """Listen, and have lightningd start the script whenever it is not running, until cancelled."""
        said = ""
        while True:
            try:
                await self._listen_and_attach()
            except OSError as error:
                if str(error) != said:
                    log.error(
                        "cannot attach lightningd: nothing is received", why=str(error), hint=self._hint()
                    )
                said = str(error)
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
            self._attached = None  # it is not lost, we let go of it
            for channel in list(self._channels):
                channel.close()
            with suppress(OSError):
                self._paths.socket.unlink()

    async def _keep_attached(self) -> None:
        delay, said = 0.1, ""
        while True:
            self._wake.clear()
            if not self._node_is_up or self._attached is not None:
                delay, said = 0.1, ""
                await self._wake.wait()
                continue
            try:
                await self._start_plugin(self._paths.script_for_node)
            except RelayError as error:
                if error.message != said:
                    log.warning("lightningd did not start the plugin", why=error.message, hint=self._hint())
                said = error.message
                delay = min(delay * 2, 5.0)
            # `plugin start` returns once the plugin is initialised, but it may have ended since.
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _listen(self) -> asyncio.Server:
        path = self._paths.socket
        with suppress(FileNotFoundError):
            path.unlink()
        # lightningd may run as another user of our group; nobody else may feed the inbox.
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
        fresh.replace(path)  # at once, since lightningd may be reading the old one

    def _make_channel(self) -> Channel:
        channel = Channel(Manifest(self._options()), self._initialised, self._lost)
        self._channels.add(channel)
        return channel

    async def _initialised(self, channel: Channel, init: Init) -> Intake:
        previous, self._attached = self._attached, channel
        if previous is not None:
            previous.close()  # of a lightningd that is gone, or messages would come twice
        self._is_attached.set()
        log.info("lightningd is attached", lightning_dir=str(init.rpc_file.parent))
        self._wake.set()
        return self._intake

    def _lost(self, channel: Channel) -> None:
        self._channels.discard(channel)
        if self._attached is channel:
            self._attached = None
            self._is_attached.clear()
            log.warning("lightningd is detached; what peers send now is not received")
            self._wake.set()

    def _hint(self) -> str:
        return (
            f"lightningd must be able to run {self._paths.script_for_node} and to reach"
            f" {self._paths.socket_for_node}; beside lightningd there must be socat or this Python."
        )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one gateway at a time use a folder: a second one would take the socket away from the first.

    Raises:
        OSError: another one does, or the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "attach.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another gateway attaches lightningd in {folder}; set another plugin_dir"
            ) from None
        yield
