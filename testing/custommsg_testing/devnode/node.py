"""The embedded node: its directory, its peers, its plugins and its RPC put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from custommsg_server.domain import wire
from custommsg_testing.devnode import commands, plugin_commands, rune_commands
from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.bolt1 import FEATURES
from custommsg_testing.devnode.identity import Lock, load_key
from custommsg_testing.devnode.networks import NETWORKS
from custommsg_testing.devnode.peer import HANDSHAKE_TIMEOUT, Peer, PeerError, PeerOptions
from custommsg_testing.devnode.peers import Events, Peers
from custommsg_testing.devnode.plugins import Host, Plugins
from custommsg_testing.devnode.received import Received, ReceivedMessages
from custommsg_testing.devnode.rpc import RpcServer
from custommsg_testing.devnode.rune import Runes
from custommsg_testing.devnode.table import Command

logger = logging.getLogger(__name__)

VERSION: Final = "v26.06.6-devnode"
"""The lightningd release whose behaviour this node shows."""

ALIAS: Final = "DEVNODE-no-channels-no-money"

_COMMANDS: Final = {
    command.name: command
    for command in (*commands.COMMANDS, *plugin_commands.COMMANDS, *rune_commands.COMMANDS)
}

OnMessage = Callable[["DevNode", Received], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a node is set up.

    Args:
        directory: the lightning-dir; the node's own files are in a folder of it named as the network.
        network: one of NETWORKS.
        listen: `host:port` for peers; port 0 takes a free one.
        alias: what getinfo calls the node.
        even_types: custom messages of these even types are accepted; those of plugins' manifests come on top.
        on_message: called with each custom message that comes in. The peer's next message waits until it is done.
        plugins: executables that are started with the node.
        options: values for the plugins' options, by name.
        handshake_timeout: seconds that a peer may take until its init.
    """

    directory: Path
    network: str = "regtest"
    listen: str = "127.0.0.1:0"
    alias: str = ALIAS
    even_types: Collection[int] = field(default=())
    on_message: OnMessage | None = None
    plugins: Sequence[Path] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    handshake_timeout: float = HANDSHAKE_TIMEOUT


class DevNode:
    """A small real Lightning node without channels and without money.

    `run` and `serve` make it. `id` is its node id (33 bytes), `rpc_file` its RPC socket, `received` holds the messages
    that came in, and `would_have_died` lists what lightningd would not have survived.

    Raises:
        ValueError: there is no such network.
        DirectoryError: the directory cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.network not in NETWORKS:
            raise ValueError(
                f"There is no network {settings.network!r}. Choose one of: {', '.join(NETWORKS)}."
            )
        self.version = VERSION
        self.network = NETWORKS[settings.network]
        self.alias = settings.alias
        self.network_dir = settings.directory.absolute() / self.network.name
        self.rpc_file = self.network_dir / "lightning-rpc"
        self.received = ReceivedMessages()
        self.would_have_died: list[str] = []
        self.remembered: set[bytes] = set()
        self.announced: dict[bytes, dict[str, object]] = {}
        self.binding: list[Address] = []
        self.stopped = asyncio.Event()
        self._settings = settings
        self.network_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = Lock(settings.directory / f"lightningd-{self.network.name}.pid")
        try:
            key = load_key(self.network_dir)
        except BaseException:
            self._lock.release()
            raise
        self.id = bytes(key.public_key().serializeCompressed())
        self.runes = Runes(key.serializeCompressed())
        options = PeerOptions(key, self.network, self._accepts, settings.handshake_timeout)
        self.peers = Peers(options, Events(self._connected, self._message, self._disconnected))
        self.plugins = Plugins(
            Host(
                self.network_dir,
                self.network.name,
                VERSION,
                settings.options,
                frozenset(_COMMANDS),
                self.record_death,
            )
        )
        self._rpc = RpcServer(self, self._find_command)
        self._winding_down: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> Address:
        """Where peers find this node; its text is host:port."""
        return self.binding[0]

    async def start(self) -> None:
        """Open the RPC, start the plugins, which may call it, and listen for peers.

        Raises:
            OSError: the address cannot be used.
            NoSuchPluginError: a plugin is not executable.
        """
        self.binding = await self.peers.bind(Address.parse(self._settings.listen, self.network.port))
        await self._rpc.listen(self.rpc_file)
        await self.plugins.start_all(self._settings.plugins)
        await self.peers.listen()
        logger.info(
            "devnode %s listens on %s (%s); it holds no channels and no money",
            self.id.hex(),
            self.address,
            self.network.name,
        )

    async def connect(self, other: DevNode | str, *, keep: bool = False) -> bytes:
        """Connect to another node.

        Args:
            other: a node of this process, or `id@host:port`.
            keep: connect again whenever the connection ends, until this node stops.

        Returns:
            The other's node id.

        Raises:
            PeerError: it cannot be reached.
            TimeoutError: it was reached, but did not read our init.
        """
        text = other if isinstance(other, str) else f"{other.id.hex()}@{other.address}"
        node_id, _, host = text.partition("@")
        address = Address.parse(host, self.network.port)
        peer = await self.peers.connect(bytes.fromhex(node_id), address)
        if keep:
            self.peers.keep(peer.id, address)
        if not isinstance(other, str):
            # Our side is ready first: the other one still has to read our init.
            await other.until_connected(self.id)
        return peer.id

    async def until_connected(self, peer_id: bytes, connected: bool = True, timeout: float = 10.0) -> None:
        """Wait until a peer is connected, or is not.

        Args:
            peer_id: 33 bytes.
            connected: which of the two.
            timeout: seconds.

        Raises:
            TimeoutError: it did not happen in time.
        """
        async with asyncio.timeout(timeout):
            await self.peers.until(peer_id, connected=connected)

    async def send(self, peer_id: bytes, message: bytes) -> None:
        """Send a custom message, and wait until there is room for more.

        Args:
            peer_id: a connected peer.
            message: its type and payload, 2 to 65,535 bytes.

        Raises:
            RelayError: the message is invalid, or of a type that the node handles itself.
            PeerError: the peer is not connected, or has just left.
            OutboxFullError: the peer does not read.
        """
        peer = self._peer(peer_id)
        peer.send(wire.parse_message(message))
        try:
            await peer.drain()
        except OSError as error:
            raise PeerError(f"the connection was lost: {error}") from None

    async def disconnect(self, peer_id: bytes) -> None:
        """End the connection to a peer.

        Raises:
            PeerError: the peer is not connected.
        """
        await self.peers.disconnect(self._peer(peer_id))

    async def next_message(self, timeout: float = 10.0) -> Received:
        """Take the next custom message that came in.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: no message came.
            MessagesLostError: messages were dropped, because more came in than is kept.
        """
        return await self.received.next(timeout)

    def remember(self, peer_id: bytes) -> None:
        """Treat a peer as lightningd treats a peer with a channel: it stays known when it leaves."""
        self.remembered.add(peer_id)

    def announce(self, other: DevNode) -> None:
        """Treat another node as known from gossip, at the address where it listens."""
        self.announced[other.id] = {
            "nodeid": other.id.hex(),
            "alias": other.alias,
            "color": other.id[:3].hex(),
            "last_timestamp": 1_700_000_000,
            "features": FEATURES.hex(),
            "addresses": [other.address.to_json()],
        }

    def record_death(self, what: str) -> None:
        """Record something that real lightningd would not have survived, and log it as an error."""
        logger.error("%s", what)
        self.would_have_died.append(what)

    async def wind_down(self) -> None:
        """End everything but the RPC, which still has a reply to give, and then stop."""
        if self._winding_down is None:
            self._winding_down = asyncio.create_task(self._wind_down())
        await asyncio.shield(self._winding_down)
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._close())

    async def stop(self) -> None:
        """Stop. The directory can be used again. The file of the RPC socket stays, as lightningd's does."""
        await self.wind_down()
        await self.stopped.wait()

    async def kill(self) -> None:
        """Cut everything at once, as kill -9 would."""
        if self._stopping is None:
            self._stopping = self._winding_down = asyncio.create_task(self._cut())
        await self.stopped.wait()

    def _find_command(self, name: str) -> Command | None:
        if (command := _COMMANDS.get(name)) is not None:
            return command
        plugin = self.plugins.find_method(name)
        return None if plugin is None else plugin_commands.forwarded(plugin, name)

    def _peer(self, peer_id: bytes) -> Peer:
        peer = self.peers.get(peer_id)
        if peer is None:
            raise PeerError(f"peer {peer_id.hex()} is not connected; connect to it first")
        return peer

    async def _wind_down(self) -> None:
        await self.plugins.stop_all()
        await self.peers.close()

    async def _close(self) -> None:
        # Leave one turn of the event loop in which the reply to `stop` is written.
        await asyncio.sleep(0)
        await self._rpc.close()
        self._lock.release()
        self.stopped.set()

    async def _cut(self) -> None:
        await self._rpc.kill()
        await self.peers.kill()
        await self.plugins.kill_all()
        self._lock.release()
        self.stopped.set()

    def _accepts(self, number: int) -> bool:
        return number in self._settings.even_types or self.plugins.accepts(number)

    def _connected(self, peer: Peer) -> None:
        direction = "in" if peer.incoming else "out"
        self.plugins.notify(
            "connect", {"id": peer.id.hex(), "direction": direction, "address": peer.address.to_json()}
        )

    def _disconnected(self, peer: Peer) -> None:
        self.plugins.notify("disconnect", {"id": peer.id.hex()})

    def _message(self, peer: Peer, message: bytes) -> Awaitable[None] | None:
        received = Received(peer.id, message)
        self.received.put(received)
        waits = [self.plugins.message(peer.id, message)]
        if self._settings.on_message is not None:
            waits.append(self._settings.on_message(self, received))
        waits = [wait for wait in waits if wait is not None]
        return _all(waits) if waits else None


async def _all(waits: list[Awaitable[None] | None]) -> None:
    for wait in waits:
        assert wait is not None
        await wait
