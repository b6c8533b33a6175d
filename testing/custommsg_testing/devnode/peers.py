"""The peers that are connected: who dials, who is dialled, and that there is one connection to each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.peer import Peer, PeerError, Terms, answer, dial

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Events:
    """What the rest of the node wants to hear of.

    Args:
        connected: a peer is there, before its first message.
        message: a custom message came in; the next one of this peer waits for what it returns.
        disconnected: a peer is gone, after its last message.
    """

    connected: Callable[[Peer], None]
    message: Callable[[Peer, bytes], Awaitable[None] | None]
    disconnected: Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connected peer, the task that reads from it, and the event that it is gone and told of."""

    peer: Peer
    task: asyncio.Task[None]
    ended: asyncio.Event


class Peers:
    """The connected peers, and the way to more of them.

    Args:
        terms: what a peer must agree with.
        events: who hears of them.
    """

    def __init__(self, terms: Terms, events: Events) -> None:
        self._terms = terms
        self._events = events
        self._connections: dict[bytes, _Connection] = {}
        self._dialling: dict[bytes, asyncio.Task[Peer]] = {}
        self._strangers: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._changed = asyncio.Event()

    async def bind(self, address: Address) -> list[Address]:
        """Take a TCP address, without listening yet.

        Returns:
            Where peers will find us: the address with its port, once for each of the host's addresses.

        Raises:
            OSError: the address cannot be had.
        """
        server = await asyncio.start_server(
            self._greet, address.host, address.port, reuse_address=True, start_serving=False
        )
        self._servers.append(server)
        return [Address(*sock.getsockname()[:2]) for sock in server.sockets]

    async def listen(self) -> None:
        """Let peers come in."""
        for server in self._servers:
            await server.start_serving()

    async def connect(self, node_id: bytes, address: Address) -> Peer:
        """Give the connection to this peer; dial it if there is none.

        Raises:
            PeerError: it cannot be reached at this address.
        """
        if (known := self.get(node_id)) is not None:
            return known
        # Two who want the same peer at the same time share one attempt, and neither ends the other's.
        if (attempt := self._dialling.get(node_id)) is None:
            attempt = self._dialling[node_id] = asyncio.create_task(self._dial(node_id, address))
            attempt.add_done_callback(lambda _: self._dialling.pop(node_id, None))
        return await asyncio.shield(attempt)

    def get(self, node_id: bytes) -> Peer | None:
        """Give the connected peer of this id."""
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
        """End all connections; no new ones come."""
        await self._end(Peer.close)

    async def kill(self) -> None:
        """Cut all connections, as a crash would."""
        await self._end(Peer.abort)

    async def _end(self, how: Callable[[Peer], None]) -> None:
        for server in self._servers:
            server.close()
        newcomers = self._strangers | set(self._dialling.values())
        for task in newcomers:
            task.cancel()
        if newcomers:
            await asyncio.wait(newcomers)
        for connection in list(self._connections.values()):
            how(connection.peer)
            connection.task.cancel()
            await connection.ended.wait()

    async def _dial(self, node_id: bytes, address: Address) -> Peer:
        peer = await dial(self._terms, node_id, address)
        await self._welcome(peer)
        return peer

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._welcome(await answer(self._terms, reader, writer))
        except PeerError as error:
            logger.info("refused a connection: %s", error)

    async def _welcome(self, peer: Peer) -> None:
        # The newest connection wins, as in lightningd: the old one may be dead without our noticing.
        while (known := self._connections.get(peer.id)) is not None:
            logger.info("peer %s reconnected: the old connection ends", peer.id.hex())
            known.peer.abort()
            known.task.cancel()
            await known.ended.wait()
        logger.info("peer %s connected (%s)", peer.id.hex(), "in" if peer.incoming else "out")
        connection = _Connection(peer, asyncio.create_task(self._run(peer)), asyncio.Event())
        # Not a `finally` in the task: a task that is cancelled before its first step never gets there.
        connection.task.add_done_callback(lambda _: self._say_farewell(connection))
        self._connections[peer.id] = connection
        self._events.connected(peer)
        self._announce()

    def _say_farewell(self, connection: _Connection) -> None:
        connection.peer.close()
        del self._connections[connection.peer.id]
        self._events.disconnected(connection.peer)
        connection.ended.set()
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self, peer: Peer) -> None:
        try:
            await peer.run(lambda message: self._events.message(peer, message))
            why = "it hung up"
        except PeerError as error:
            why = str(error)
        except Exception:
            logger.exception("peer %s: what handles its messages has failed", peer.id.hex())
            why = "we failed"
        logger.info("peer %s disconnected: %s", peer.id.hex(), why)
