"""The connected peers, one connection to each, whoever has opened it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.peer import Peer, PeerError, PeerOptions, accept, dial

logger = logging.getLogger(__name__)

RECONNECT_DELAY: Final = 0.1
"""Seconds between the end of a connection that is to be kept, or a failed attempt, and the next attempt."""


@dataclass(frozen=True, slots=True)
class Events:
    """What is called when something happens.

    Args:
        connected: a peer is connected; called before its first message.
        message: a custom message came in. The peer's next message waits until the result is done.
        disconnected: a peer is gone; called after its last message.
    """

    connected: Callable[[Peer], None]
    message: Callable[[Peer, bytes], Awaitable[None] | None]
    disconnected: Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connected peer, the task that reads from it, and whether it has ended and `disconnected` was called."""

    peer: Peer
    task: asyncio.Task[None]
    ended: asyncio.Event


class Peers:
    """The connected peers.

    Args:
        options: how connections are made.
        events: what is called when something happens.
    """

    def __init__(self, options: PeerOptions, events: Events) -> None:
        self._options = options
        self._events = events
        self._connections: dict[bytes, _Connection] = {}
        self._dialling: dict[bytes, asyncio.Task[Peer]] = {}
        self._accepting: set[asyncio.Task[None]] = set()
        self._keeping: dict[bytes, asyncio.Task[None]] = {}
        self._servers: list[asyncio.Server] = []
        self._changed = asyncio.Event()

    async def bind(self, address: Address) -> list[Address]:
        """Take a TCP address, without listening yet.

        Returns:
            Where peers will find us: the address with its port, once for each address of the host.

        Raises:
            OSError: the address cannot be used.
        """
        server = await asyncio.start_server(
            self._accept, address.host, address.port, reuse_address=True, start_serving=False
        )
        self._servers.append(server)
        return [Address(*sock.getsockname()[:2]) for sock in server.sockets]

    async def listen(self) -> None:
        """Accept connections from now on."""
        for server in self._servers:
            await server.start_serving()

    async def connect(self, node_id: bytes, address: Address) -> Peer:
        """Return the connected peer; connect to it if it is not connected.

        Raises:
            PeerError: it cannot be reached at this address.
        """
        if (known := self.get(node_id)) is not None:
            return known
        # Callers that want the same peer at the same time share one attempt.
        if (attempt := self._dialling.get(node_id)) is None:
            attempt = self._dialling[node_id] = asyncio.create_task(self._dial(node_id, address))
            attempt.add_done_callback(lambda _: self._dialling.pop(node_id, None))
        return await asyncio.shield(attempt)

    def keep(self, node_id: bytes, address: Address) -> None:
        """Connect to this peer again whenever it is not connected."""
        if node_id not in self._keeping:
            self._keeping[node_id] = asyncio.create_task(self._keep(node_id, address))

    def get(self, node_id: bytes) -> Peer | None:
        """Return the connected peer of this id; None if it is not connected."""
        connection = self._connections.get(node_id)
        return None if connection is None else connection.peer

    async def until(self, node_id: bytes, *, connected: bool) -> None:
        """Wait until this peer is connected, or is not."""
        while (self.get(node_id) is not None) is not connected:
            changed = self._changed
            await changed.wait()

    def __iter__(self) -> Iterator[Peer]:
        return iter([connection.peer for connection in self._connections.values()])

    def __len__(self) -> int:
        return len(self._connections)

    async def disconnect(self, peer: Peer) -> None:
        """End a connection, and wait until it has ended."""
        connection = self._connections.get(peer.id)
        peer.close()
        if connection is not None and connection.peer is peer:
            await connection.ended.wait()

    async def close(self) -> None:
        """End all connections, and accept no more."""
        await self._end(Peer.close)

    async def kill(self) -> None:
        """Cut all connections, as a crash would."""
        await self._end(Peer.abort)

    async def _end(self, how: Callable[[Peer], None]) -> None:
        for server in self._servers:
            server.close()
        beginning = {*self._keeping.values(), *self._accepting, *self._dialling.values()}
        for task in beginning:
            task.cancel()
        if beginning:
            await asyncio.wait(beginning)
        for connection in list(self._connections.values()):
            how(connection.peer)
            connection.task.cancel()
            await connection.ended.wait()

    async def _keep(self, node_id: bytes, address: Address) -> None:
        while True:
            await self.until(node_id, connected=False)
            await asyncio.sleep(RECONNECT_DELAY)
            try:
                await self.connect(node_id, address)
            except PeerError as error:
                logger.info("peer %s cannot be reached: %s", node_id.hex(), error)

    async def _dial(self, node_id: bytes, address: Address) -> Peer:
        peer = await dial(self._options, node_id, address)
        await self._add(peer)
        return peer

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accept_peer(reader, writer))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _accept_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._add(await accept(self._options, reader, writer))
        except PeerError as error:
            logger.info("refused a connection: %s", error)

    async def _add(self, peer: Peer) -> None:
        # The newest connection wins, as in lightningd: the peer may have lost the old one without our noticing.
        while (known := self._connections.get(peer.id)) is not None:
            logger.info("peer %s reconnected: the old connection ends", peer.id.hex())
            known.peer.abort()
            known.task.cancel()
            await known.ended.wait()
        logger.info("peer %s connected (%s)", peer.id.hex(), "in" if peer.incoming else "out")
        connection = _Connection(peer, asyncio.create_task(self._run(peer)), asyncio.Event())
        # Not a `finally` in the task: a task that is cancelled before its first step never enters it.
        connection.task.add_done_callback(lambda _: self._remove(connection))
        self._connections[peer.id] = connection
        self._events.connected(peer)
        self._wake()

    def _remove(self, connection: _Connection) -> None:
        connection.peer.close()
        del self._connections[connection.peer.id]
        self._events.disconnected(connection.peer)
        connection.ended.set()
        self._wake()

    def _wake(self) -> None:
        """Wake what waits in `until`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self, peer: Peer) -> None:
        try:
            await peer.run(lambda message: self._events.message(peer, message))
            why = "the peer closed the connection"
        except PeerError as error:
            why = str(error)
        except Exception:
            logger.exception("peer %s: on_message failed, so that the connection ends", peer.id.hex())
            why = "on_message failed"
        logger.info("peer %s disconnected: %s", peer.id.hex(), why)
