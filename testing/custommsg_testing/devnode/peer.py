"""One connected peer: the handshake, init, and the messages of BOLT 1 after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from pyln.proto.primitives import PrivateKey

from custommsg_server.domain import wire
from custommsg_testing.devnode import bolt1, noise
from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.networks import Network
from custommsg_testing.devnode.outbox import Outbox, OutboxFullError

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds from the first byte to the peer's init."""

PING_INTERVAL: Final = 30.0
"""Seconds of silence after which a peer is pinged. After as many again, the connection ends."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a peer has to read what was sent before the end of the connection."""

OUTBOX_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that may wait for a peer that does not read. lightningd has no such limit."""

_READ_SIZE: Final = 256 * 1024


class PeerError(Exception):
    """There is no connection, or it cannot go on. The message says why."""


class UnknownHostError(PeerError):
    """The name of the host is unknown or invalid."""


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How connections to peers are made.

    Args:
        key: our own key.
        network: our network; the peer's must be the same.
        accepts: says whether custom messages of an even type are accepted. If not, they end the connection (BOLT 1).
        handshake_timeout: seconds that the peer may take until its init.
    """

    key: PrivateKey
    network: Network
    accepts: Callable[[int], bool]
    handshake_timeout: float = HANDSHAKE_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Transport:
    """A connection after the handshake."""

    node_id: bytes
    address: Address
    incoming: bool
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ciphers: tuple[noise.Encryptor, noise.Decryptor]


class Peer:
    """A connected peer, whose init has been read. `dial` and `accept` make it.

    `id` is its node id (33 bytes), `address` its address, `incoming` says that it has connected to us, and `features`
    are the features of its init.
    """

    def __init__(
        self, options: PeerOptions, transport: _Transport, features: bytes, messages: list[bytes]
    ) -> None:
        self.id, self.address, self.incoming = transport.node_id, transport.address, transport.incoming
        self.features = features
        self._options = options
        self._reader, self._writer = transport.streams
        self._encryptor, self._decryptor = transport.ciphers
        self._first_messages = messages  # those that came together with the init
        self._outbox = Outbox(self._writer, OUTBOX_LIMIT)
        self._silent = False
        self._keepalive = asyncio.get_running_loop().call_later(PING_INTERVAL, self._check_alive)

    def send(self, message: bytes) -> None:
        """Send a message with the next turn of the event loop.

        Raises:
            OutboxFullError: the peer does not read.
        """
        self._outbox.write(self._encryptor.encrypt(message))

    async def drain(self) -> None:
        """Wait until the peer has read enough to be sent more."""
        await self._outbox.drain()

    async def run(self, handle: Callable[[bytes], Awaitable[None] | None]) -> None:
        """Read until the connection ends, and call `handle` with each custom message, in order.

        Raises:
            PeerError: the connection ended because of an error.
        """
        try:
            await self._handle_all(self._first_messages, handle)
            while data := await self._reader.read(_READ_SIZE):
                self._silent = False
                await self._handle_all(self._decryptor.feed(data), handle)
        except (OSError, noise.TransportError, OutboxFullError) as error:
            raise PeerError(str(error)) from None
        finally:
            self.close()

    def close(self) -> None:
        """End the connection after what has been sent so far, or after CLOSE_TIMEOUT if the peer does not read that."""
        self._keepalive.cancel()
        if not self._writer.is_closing():
            self._outbox.flush()
            self._writer.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def _handle_all(
        self, messages: list[bytes], handle: Callable[[bytes], Awaitable[None] | None]
    ) -> None:
        for message in messages:
            number = wire.message_type(message) if len(message) >= wire.MIN_MESSAGE_SIZE else -1
            if number in wire.INTERNAL_TYPES:
                self._handle_internal(number, message)
                continue
            # A message of less than two bytes has no type. lightningd passes it on all the same.
            if number >= 0 and number % 2 == 0 and not self._options.accepts(number):
                self._warn_and_fail(f"Invalid unknown even msg {message.hex()}")
            if (waiting := handle(message)) is not None:
                await waiting

    def _handle_internal(self, number: int, message: bytes) -> None:
        if number == bolt1.PING:
            try:
                answer = bolt1.pong(message)
            except bolt1.BadMessageError:
                self._warn_and_fail(f"Invalid ping {message.hex()}")
            if answer is not None:
                self.send(answer)
        elif number == bolt1.WARNING:
            logger.warning("peer %s warns: %s", self.id.hex(), bolt1.text_of(message))
        elif number == bolt1.ERROR:
            raise PeerError(f"the peer sent an error: {bolt1.text_of(message)}")
        elif number != bolt1.PONG:
            # Messages about gossip and channels, neither of which this node has.
            logger.debug("peer %s: ignored a %s", self.id.hex(), wire.INTERNAL_TYPES[number])

    def _warn_and_fail(self, text: str) -> NoReturn:
        self.send(bolt1.warning(text))
        raise PeerError(text)

    def _check_alive(self) -> None:
        if self._silent:
            logger.info("peer %s: a ping was not answered, so that the connection ends", self.id.hex())
            self.abort()
            return
        self._silent = True
        with contextlib.suppress(OutboxFullError):
            self.send(bolt1.ping())
        self._keepalive = asyncio.get_running_loop().call_later(PING_INTERVAL, self._check_alive)


async def dial(options: PeerOptions, node_id: bytes, address: Address) -> Peer:
    """Connect to a peer.

    Raises:
        UnknownHostError: the name of the host is unknown or invalid.
        PeerError: the attempt failed. It says in lightningd's words at which step: `Connection establishment: ...`.
    """
    step = "Connection establishment"
    try:
        async with asyncio.timeout(options.handshake_timeout), contextlib.AsyncExitStack() as on_failure:
            streams = reader, writer = await asyncio.open_connection(address.host, address.port)
            on_failure.callback(writer.close)
            where = Address(*writer.get_extra_info("peername")[:2])
            step = "Cryptographic handshake"
            initiator = noise.Initiator(options.key, node_id)
            writer.write(initiator.act_one())
            writer.write(initiator.act_three(await reader.readexactly(noise.ACT_TWO_SIZE)))
            step = "Exchanging init messages"
            peer = await _exchange_inits(
                options, _Transport(node_id, where, False, streams, initiator.ciphers())
            )
            on_failure.pop_all()
            return peer
    except asyncio.IncompleteReadError:
        # The responder closes the connection when the initiator wants another node id than its own.
        why = "peer closed connection" + (" (wrong key?)" if step == "Cryptographic handshake" else "")
    except TimeoutError:
        why = "Connection timed out"
    except (socket.gaierror, ValueError) as error:  # ValueError: the name is not even possible
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise UnknownHostError(f"Host {address} not valid: {text}") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    except (noise.TransportError, bolt1.BadMessageError, PeerError) as error:
        why = str(error)
    raise PeerError(f"{address}: {step}: {why}")


async def accept(options: PeerOptions, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Peer:
    """Make a peer of an incoming connection.

    Raises:
        PeerError: the other side is not a Lightning node of our network.
    """
    try:
        address = Address(*writer.get_extra_info("peername")[:2])
        async with asyncio.timeout(options.handshake_timeout), contextlib.AsyncExitStack() as on_failure:
            on_failure.callback(writer.close)
            responder = noise.Responder(options.key)
            writer.write(responder.act_two(await reader.readexactly(noise.ACT_ONE_SIZE)))
            node_id = responder.finish(await reader.readexactly(noise.ACT_THREE_SIZE))
            peer = await _exchange_inits(
                options, _Transport(node_id, address, True, (reader, writer), responder.ciphers())
            )
            on_failure.pop_all()
            return peer
    except TimeoutError:
        why = "it took too long"
    except asyncio.IncompleteReadError:
        why = "it closed the connection"
    except (OSError, noise.TransportError, bolt1.BadMessageError, PeerError) as error:
        why = str(error)
    raise PeerError(why)


async def _exchange_inits(options: PeerOptions, transport: _Transport) -> Peer:
    reader, writer = transport.streams
    encryptor, decryptor = transport.ciphers
    writer.write(encryptor.encrypt(bolt1.Init(bolt1.FEATURES, (options.network.chain_hash,)).encode()))
    messages: list[bytes] = []
    while not messages:
        data = await reader.read(_READ_SIZE)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        # BOLT 1: messages of odd types that we do not know may come before the init.
        messages = list(itertools.dropwhile(_is_unknown_and_odd, decryptor.feed(data)))
    theirs = bolt1.Init.decode(messages[0])
    if theirs.networks is not None and options.network.chain_hash not in theirs.networks:
        writer.write(encryptor.encrypt(bolt1.warning("No common network")))
        raise PeerError("No common network")
    return Peer(options, transport, theirs.features, messages[1:])


def _is_unknown_and_odd(message: bytes) -> bool:
    if len(message) < wire.MIN_MESSAGE_SIZE:
        return False
    number = wire.message_type(message)
    return number % 2 == 1 and number not in wire.INTERNAL_TYPES
