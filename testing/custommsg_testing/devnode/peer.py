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
"""Seconds from the first byte to the peer's init; who needs longer is no peer."""

PING_INTERVAL: Final = 30.0
"""Seconds of silence after which a peer is pinged; after as many again it is gone."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds in which a peer may still read what was sent before the end."""

OUTBOX_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that may wait for a peer that does not read. lightningd has no such bound: it grows."""

_READ_SIZE: Final = 256 * 1024


class PeerError(Exception):
    """The connection cannot be, or cannot go on; the message says why."""


class UnknownHostError(PeerError):
    """There is no such host."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a peer must agree with.

    Args:
        key: our own.
        network: ours.
        accepts: whether a custom message of this even type is expected (BOLT 1: else the peer is at fault).
        handshake_timeout: seconds.
    """

    key: PrivateKey
    network: Network
    accepts: Callable[[int], bool]
    handshake_timeout: float = HANDSHAKE_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection after the handshake."""

    node_id: bytes
    address: Address
    incoming: bool
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ciphers: tuple[noise.Encryptor, noise.Decryptor]


class Peer:
    """A peer whose init has been read; `dial` and `answer` make it.

    Its `id` is 33 bytes, `address` is where it is, `incoming` says that it dialled us, and `features` are
    those of its init.
    """

    def __init__(self, terms: Terms, link: _Link, features: bytes, early: list[bytes]) -> None:
        self.id, self.address, self.incoming, self.features = (
            link.node_id,
            link.address,
            link.incoming,
            features,
        )
        self._terms = terms
        self._reader, self._writer = link.streams
        self._encryptor, self._decryptor = link.ciphers
        self._early = early  # what came together with the init
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
        """Wait until the peer has read enough for more to be worth sending."""
        await self._outbox.drain()

    async def run(self, handle: Callable[[bytes], Awaitable[None] | None]) -> None:
        """Read until the connection ends, and call `handle` with each custom message, in order.

        Raises:
            PeerError: it did not end well.
        """
        try:
            await self._handle_all(self._early, handle)
            while data := await self._reader.read(_READ_SIZE):
                self._silent = False
                await self._handle_all(self._decryptor.feed(data), handle)
        except (OSError, noise.TransportError, OutboxFullError) as error:
            raise PeerError(str(error)) from None
        finally:
            self.close()

    def close(self) -> None:
        """End the connection after what has been sent so far; soon, if the peer does not read it."""
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
            # A message of under two bytes has no type; lightningd passes it on all the same.
            if number >= 0 and number % 2 == 0 and not self._terms.accepts(number):
                self._blame(f"Invalid unknown even msg {message.hex()}")
            if (waiting := handle(message)) is not None:
                await waiting

    def _handle_internal(self, number: int, message: bytes) -> None:
        if number == bolt1.PING:
            try:
                answer = bolt1.pong(message)
            except bolt1.BadMessageError:
                self._blame(f"Invalid ping {message.hex()}")
            if answer is not None:
                self.send(answer)
        elif number == bolt1.WARNING:
            logger.warning("peer %s warns: %s", self.id.hex(), bolt1.words(message))
        elif number == bolt1.ERROR:
            raise PeerError(f"the peer sent an error: {bolt1.words(message)}")
        elif number != bolt1.PONG:
            # Gossip, or the affairs of channels: this node takes no part in either.
            logger.debug("peer %s: ignored a %s", self.id.hex(), wire.INTERNAL_TYPES[number])

    def _blame(self, text: str) -> NoReturn:
        self.send(bolt1.warning(text))
        raise PeerError(text)

    def _check_alive(self) -> None:
        if self._silent:
            logger.info("peer %s: no answer to a ping, closing", self.id.hex())
            self.abort()
            return
        self._silent = True
        with contextlib.suppress(OutboxFullError):
            self.send(bolt1.ping())
        self._keepalive = asyncio.get_running_loop().call_later(PING_INTERVAL, self._check_alive)


async def dial(terms: Terms, node_id: bytes, address: Address) -> Peer:
    """Connect to a peer.

    Raises:
        UnknownHostError: there is no such host.
        PeerError: with lightningd's words for how far it came, as in `Connection establishment: ...`.
    """
    stage = "Connection establishment"
    try:
        async with asyncio.timeout(terms.handshake_timeout), contextlib.AsyncExitStack() as on_failure:
            streams = reader, writer = await asyncio.open_connection(address.host, address.port)
            on_failure.callback(writer.close)
            where = Address(*writer.get_extra_info("peername")[:2])
            stage = "Cryptographic handshake"
            initiator = noise.Initiator(terms.key, node_id)
            writer.write(initiator.act_one())
            writer.write(initiator.act_three(await reader.readexactly(noise.ACT_TWO_SIZE)))
            stage = "Exchanging init messages"
            peer = await _exchange_inits(terms, _Link(node_id, where, False, streams, initiator.ciphers()))
            on_failure.pop_all()
            return peer
    except asyncio.IncompleteReadError:
        # The responder hangs up when the initiator dialled another node id than its own.
        why = "peer closed connection" + (" (wrong key?)" if stage == "Cryptographic handshake" else "")
    except TimeoutError:
        why = "Connection timed out"
    except (socket.gaierror, ValueError) as error:  # the latter: a name that can be none
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise UnknownHostError(f"Host {address} not valid: {text}") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    except (noise.TransportError, bolt1.BadMessageError, PeerError) as error:
        why = str(error)
    raise PeerError(f"{address}: {stage}: {why}")


async def answer(terms: Terms, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Peer:
    """Take an incoming connection.

    Raises:
        PeerError: it is none of a Lightning peer of our network.
    """
    try:
        address = Address(*writer.get_extra_info("peername")[:2])
        async with asyncio.timeout(terms.handshake_timeout), contextlib.AsyncExitStack() as on_failure:
            on_failure.callback(writer.close)
            responder = noise.Responder(terms.key)
            writer.write(responder.act_two(await reader.readexactly(noise.ACT_ONE_SIZE)))
            node_id = responder.finish(await reader.readexactly(noise.ACT_THREE_SIZE))
            peer = await _exchange_inits(
                terms, _Link(node_id, address, True, (reader, writer), responder.ciphers())
            )
            on_failure.pop_all()
            return peer
    except TimeoutError:
        why = "it took too long"
    except asyncio.IncompleteReadError:
        why = "it hung up"
    except (OSError, noise.TransportError, bolt1.BadMessageError, PeerError) as error:
        why = str(error)
    raise PeerError(why)


async def _exchange_inits(terms: Terms, link: _Link) -> Peer:
    reader, writer = link.streams
    encryptor, decryptor = link.ciphers
    writer.write(encryptor.encrypt(bolt1.Init(bolt1.FEATURES, (terms.network.chain_hash,)).encode()))
    messages: list[bytes] = []
    while not messages:
        data = await reader.read(_READ_SIZE)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        # BOLT 1: messages of odd types that we do not know may come before the init.
        messages = list(itertools.dropwhile(_is_unknown_and_odd, decryptor.feed(data)))
    theirs = bolt1.Init.decode(messages[0])
    if theirs.networks is not None and terms.network.chain_hash not in theirs.networks:
        writer.write(encryptor.encrypt(bolt1.warning("No common network")))
        raise PeerError("No common network")
    return Peer(terms, link, theirs.features, messages[1:])


def _is_unknown_and_odd(message: bytes) -> bool:
    if len(message) < wire.MIN_MESSAGE_SIZE:
        return False
    number = wire.message_type(message)
    return number % 2 == 1 and number not in wire.INTERNAL_TYPES
