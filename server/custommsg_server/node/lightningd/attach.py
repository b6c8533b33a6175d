"""Has lightningd run our script as a plugin, which connects its stdin and stdout to our socket.

lightningd may run in another container, which has only a shell and socat. So the script has only a few lines. It
contains a token, which `guard` checks.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.node.lightningd import pipe
from custommsg_server.node.lightningd.channel import Channel, DeclinedError, Intake
from custommsg_server.node.lightningd.guard import Guard, Peer, users_allowed
from custommsg_server.node.lightningd.manifest import Init, Manifest, PluginOptions

log = structlog.get_logger()

RETRY = 5.0
"""Seconds until the next try to create the socket and the script."""

SCRIPT = """\
#!/bin/sh
# Written by custommsg-server at each start. It joins lightningd's plugin channel to the gateway's socket. The first
# line that it sends is a token, which shows the gateway that lightningd's user was allowed to read this file.
token={token}
if [ "$1" = joined ]; then # socat has made stdin and stdout the socket; 3 and 4 are lightningd's ends
    printf '%s\\n' "$token"
    exec socat -b65536 -t0 STDIO 'FD:3!!FD:4'
fi
cd {folder} || exit 1
if command -v socat >/dev/null 2>&1; then
    exec 3<&0 4>&1
    exec socat UNIX-CONNECT:{socket} 'EXEC:/bin/sh {script} joined,nofork'
fi
export CUSTOMMSG_TOKEN="$token" # other users can see a command line, but not the environment
exec {python} {pipe} {socket}
"""
SOCKET_NAME = "plugin.sock"
SCRIPT_NAME = "custommsg-attach"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the socket and the script are. lightningd may see the same files under other paths."""

    socket: Path
    script: Path
    script_for_node: str

    @classmethod
    def within(cls, folder: Path, folder_for_node: str | None) -> Paths:
        """Return the paths within one folder.

        Args:
            folder: its path for us.
            folder_for_node: its path for lightningd, if that is another one.
        """
        for_node = folder_for_node or str(folder)
        return cls(folder / SOCKET_NAME, folder / SCRIPT_NAME, f"{for_node}/{SCRIPT_NAME}")


class Attachment:
    """Keeps one lightningd attached.

    Args:
        paths: where the socket and the script are.
        make_parents: whether to create all parent folders; if not, only the last one.
        rpc_file: lightningd's JSON-RPC socket: its owner may connect.
        intake: stores arrivals.
        options: returns the options of the manifest; called when the node is known.
        start_plugin: asks lightningd to run the script; raises RelayError.
    """

    def __init__(
        self,
        paths: Paths,
        make_parents: bool,
        rpc_file: Path,
        intake: Intake,
        options: Callable[[], PluginOptions],
        start_plugin: Callable[[str], Awaitable[None]],
    ) -> None:
        self._paths = paths
        self._make_parents = make_parents
        self._rpc_file = rpc_file
        self._token = secrets.token_hex(16)
        self._intake = intake
        self._options = options
        self._start_plugin = start_plugin
        self._node_is_up = False
        self._wake = asyncio.Event()
        self._connections: dict[Guard | Channel, None] = {}
        self._refused: set[int] = set()
        self._channel: Channel | None = None
        self._is_attached = asyncio.Event()

    @property
    def is_attached(self) -> bool:
        """Whether lightningd sends its messages to us, and the interruption before them is stored."""
        return self._is_attached.is_set()

    async def attached(self) -> None:
        """Wait until it is attached."""
        await self._is_attached.wait()

    def node_changed(self, is_up: bool) -> None:
        """Apply the state of the link to the node."""
        self._node_is_up = is_up
        self._wake.set()

    async def run(self) -> None:
        """Listen, and have lightningd start the script whenever it is not running, until cancelled."""
        logged = ""
        while True:
            try:
                with _only_one(self._paths.socket.parent, self._make_parents):
                    await self._listen_and_attach()
            except OSError as error:
                if str(error) != logged:
                    log.error(
                        "cannot attach lightningd: no messages are received",
                        why=str(error),
                        hint=self._hint(),
                    )
                logged = str(error)
                await asyncio.sleep(RETRY)

    async def _listen_and_attach(self) -> None:
        self._write_script()  # first: a script of an earlier start would send an old token
        server = await self._bind()
        try:
            await server.start_serving()
            await self._keep_attached()
        finally:
            server.close()
            self._channel = None  # so that closing it is not reported as a loss
            self._is_attached.clear()
            for connection in list(self._connections):
                connection.close()
            with suppress(OSError):
                self._paths.socket.unlink()

    async def _keep_attached(self) -> None:
        delay, logged = 0.1, ""
        while True:
            self._wake.clear()
            if not self._node_is_up or self._channel is not None:
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
            # `plugin start` returns when the plugin is initialised, but the plugin may have ended since.
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _bind(self) -> asyncio.Server:
        path = self._paths.socket
        with suppress(FileNotFoundError):
            path.unlink()
        # lightningd may run as another user of our group. Nobody else may connect.
        before = os.umask(0o117)
        try:
            loop = asyncio.get_running_loop()
            return await loop.create_unix_server(self._make_guard, path, start_serving=False)
        finally:
            os.umask(before)

    def _write_script(self) -> None:
        path = self._paths.script
        text = SCRIPT.format(
            token=self._token,
            folder=shlex.quote(str(Path(self._paths.script_for_node).parent)),
            socket=SOCKET_NAME,
            script=SCRIPT_NAME,
            python=shlex.quote(sys.executable),
            pipe=shlex.quote(pipe.__file__),
        )
        fresh = path.with_name(path.name + ".new")
        with suppress(FileNotFoundError):
            fresh.unlink()
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            # lightningd may run as another user of our group. Nobody else may read the token.
            os.fchmod(file.fileno(), 0o750)
        fresh.replace(path)  # atomically: lightningd may be reading the old one

    def _make_guard(self) -> Guard:
        guard = Guard(
            self._token,
            partial(users_allowed, self._rpc_file),
            self._admit,
            self._refuse,
            self._forget,
        )
        self._connections[guard] = None
        return guard

    def _forget(self, connection: Guard | Channel) -> None:
        self._connections.pop(connection, None)

    def _refuse(self, peer: Peer) -> None:
        if peer.uid not in self._refused:  # once for each user, who may try again and again
            self._refused.add(peer.uid)
            log.error(
                "connection to the plugin socket refused",
                why="its user is not the gateway's, root, or the owner of lightningd's JSON-RPC socket",
                uid=peer.uid,
                pid=peer.pid,
            )

    def _admit(self, peer: Peer) -> Channel:
        channel = Channel(Manifest(self._options()), partial(self._initialised, peer), self._lost)
        self._connections[channel] = None
        return channel

    async def _initialised(self, peer: Peer, channel: Channel, init: Init) -> Intake:
        if self._channel is not None and self._channel.is_alive:
            log.warning("second plugin channel refused", uid=peer.uid, pid=peer.pid)
            raise DeclinedError(
                "another copy of this plugin has already attached this gateway; stop one of them"
            )
        if not channel.is_alive:  # `_lost` may have been called before, and will not be called again
            raise DeclinedError("this connection has ended")
        previous, self._channel = self._channel, channel
        if previous is not None:
            previous.close()  # it has ended, but the event loop does not know yet
            self._is_attached.clear()
        self._interrupt(channel, peer, init)
        self._wake.set()
        return self._intake

    def _interrupt(self, channel: Channel, peer: Peer, init: Init) -> None:
        """Store an interruption before the messages of this channel; then the gateway is attached."""

        def ended(is_stored: bool) -> None:
            if self._channel is not channel:
                return
            if not is_stored:
                asyncio.get_running_loop().call_later(RETRY, self._interrupt, channel, peer, init)
                return
            self._is_attached.set()
            folder = str(init.rpc_file.parent)
            log.info("lightningd is attached", lightning_dir=folder, uid=peer.uid, pid=peer.pid)

        if self._channel is channel:
            self._intake.append([Arrival(Kind.INTERRUPTION, time.time_ns())], ended)

    def _lost(self, channel: Channel) -> None:
        self._forget(channel)
        if self._channel is channel:
            self._channel = None
            self._is_attached.clear()
            log.warning("lightningd is detached; messages that peers send now are not received")
            self._wake.set()

    def _hint(self) -> str:
        return (
            f"lightningd must be able to run {self._paths.script_for_node} and to connect to {SOCKET_NAME} in the"
            " same folder, with socat or this Python."
        )


@contextmanager
def _only_one(folder: Path, make_parents: bool) -> Iterator[None]:
    """Lock a folder, so that a second gateway cannot replace the socket of the first.

    Raises:
        OSError: another gateway uses it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=make_parents, exist_ok=True)
    except FileNotFoundError:
        raise OSError(f"{folder.parent} does not exist yet; start lightningd, which creates it") from None
    with (folder / "attach.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another gateway uses {folder} for its plugin; set another plugin_dir for this one"
            ) from None
        yield
