"""Keeps a connection to lightningd: waits for its socket, reconnects, and checks that lightningd answers."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from pyln.client.lightning import UnixSocket

from custommsg_server.domain.errors import RelayError, node_unavailable
from custommsg_server.node.lightningd.connection import Connection, queue_full

log = structlog.get_logger()

MAX_SEPARATE: Final = 32
"""The maximum number of separate connections; each takes a file descriptor of lightningd."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Options of the link. Times are in seconds."""

    window: int = 512
    """The maximum number of unanswered requests."""
    max_waiting: int = 8192
    """The maximum number of requests that wait to be written."""
    probe_interval: float = 5.0
    """How often to check with getinfo that the node answers."""
    reply_timeout: float = 30.0
    """How long to wait for a reply before the connection is closed and opened again."""
    backoff_min: float = 0.05
    """The delay before connecting again; doubled after each failure ..."""
    backoff_max: float = 2.0
    """... up to this."""


class Link:
    """The link to one lightningd.

    Args:
        rpc_file: its JSON-RPC socket.
        greet: asks the node for its description; while that succeeds, the link is up.
        options: its options.
    """

    def __init__(
        self, rpc_file: Path, greet: Callable[[Connection], Awaitable[None]], options: LinkOptions
    ) -> None:
        self._rpc_file = rpc_file
        self._greet = greet
        self._options = options
        self._connection: Connection | None = None
        self._why = "the gateway has just started"
        self._is_up = False
        self._watchers: list[Callable[[bool], None]] = []
        self._separate = 0

    @property
    def is_up(self) -> bool:
        """Whether the node answers."""
        return self._is_up

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher` now and whenever the link goes up or down."""
        self._watchers.append(watcher)
        watcher(self._is_up)

    def has_room(self, caller: str) -> bool:
        """Whether a caller may add requests."""
        return self._connection is None or self._connection.has_room(caller)

    def connection(self) -> Connection:
        """Return the connection to make requests on. Raises RelayError: NODE_UNAVAILABLE."""
        if self._connection is None or not self._is_up:
            raise node_unavailable(self._why)
        return self._connection

    @asynccontextmanager
    async def open_separate(self) -> AsyncIterator[Connection]:
        """Open a connection for one request with a slow answer; close it afterwards.

        Raises:
            RelayError: NODE_UNAVAILABLE or OVERLOADED.
        """
        self.connection()
        if self._separate >= MAX_SEPARATE:
            raise queue_full()
        self._separate += 1
        try:
            connection = await self._open(lambda: None)
            try:
                yield connection
            finally:
                connection.close()
        except OSError as error:
            raise node_unavailable(error.strerror or str(error)) from None
        finally:
            self._separate -= 1

    async def run(self) -> None:
        """Keep the link until cancelled."""
        delay = self._options.backoff_min
        try:
            while True:
                try:
                    if await self._connect_and_watch():
                        delay = self._options.backoff_min
                except OSError as error:
                    self._set_down(f"{error.strerror or error}: {self._rpc_file}")
                # Jitter, so that many gateways do not reconnect at the same time.
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 -- not a secret
                delay = min(delay * 2, self._options.backoff_max)
        finally:
            self._set_down("the gateway is stopping", is_wanted=True)

    async def _connect_and_watch(self) -> bool:
        lost = asyncio.Event()
        connection = self._connection = await self._open(lost.set)
        was_up = False
        try:
            while not lost.is_set():
                if await self._probe(connection):
                    was_up = True
                await _wait(lost, self._options.probe_interval if self._is_up else self._options.backoff_max)
        finally:
            self._connection = None
            connection.close()
        self._set_down("the connection to it was lost")
        return was_up

    async def _open(self, on_lost: Callable[[], None]) -> Connection:
        sock = await _open_in_thread(self._rpc_file)
        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: Connection(self._options.window, self._options.max_waiting, on_lost), sock=sock
        )
        return connection

    async def _probe(self, connection: Connection) -> bool:
        """Check that the node answers; close the connection if a request has waited too long for its reply."""
        now = asyncio.get_running_loop().time()
        if now - connection.oldest > self._options.reply_timeout:
            log.error(
                "lightningd does not answer requests; connecting again", seconds=self._options.reply_timeout
            )
            connection.close()
            return False
        try:
            async with asyncio.timeout(self._options.probe_interval):
                await self._greet(connection)
        except RelayError as error:
            self._set_down(error.message)
        except TimeoutError:
            if connection.last_reply < now:  # otherwise it is busy with other requests
                self._set_down(f"it has not answered for {self._options.probe_interval:g} s")
        else:
            self._set_up()
        return self._is_up

    def _set_up(self) -> None:
        if not self._is_up:
            self._is_up = True
            log.info("node link up", rpc_file=str(self._rpc_file))
            self._tell()

    def _set_down(self, why: str, is_wanted: bool = False) -> None:
        if self._is_up or why != self._why:
            (log.info if is_wanted else log.warning)("node link down", rpc_file=str(self._rpc_file), why=why)
        self._why = why
        if self._is_up:
            self._is_up = False
            self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher(self._is_up)


def open_socket(rpc_file: Path) -> socket.socket:
    """Connect to lightningd's socket. Raises OSError: it cannot be opened."""
    # pyln-client can connect to a socket whose path is longer than the kernel allows.
    wrapper = UnixSocket(str(rpc_file))
    sock: socket.socket = wrapper.sock
    wrapper.sock = None  # otherwise its destructor closes the socket
    sock.setblocking(False)
    return sock


async def _open_in_thread(rpc_file: Path) -> socket.socket:
    """Connect in a thread, since connecting blocks while lightningd is stopped and its backlog is full.

    Not in the pool of the event loop, which waits for its threads at the end.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[socket.socket] = loop.create_future()

    def hand_over(sock: socket.socket | None, error: OSError | None) -> None:
        if opened.done():  # nobody waits any more
            if sock is not None:
                sock.close()
        elif sock is not None:
            opened.set_result(sock)
        elif error is not None:
            opened.set_exception(error)

    def connect() -> None:
        sock, failure = None, None
        try:
            sock = open_socket(rpc_file)
        except OSError as error:
            failure = error
        try:
            loop.call_soon_threadsafe(hand_over, sock, failure)
        except RuntimeError:  # the loop has ended
            if sock is not None:
                sock.close()

    threading.Thread(target=connect, daemon=True, name="connect").start()
    try:
        return await opened
    except asyncio.CancelledError:
        if opened.done() and not opened.cancelled() and opened.exception() is None:
            opened.result().close()
        raise


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
