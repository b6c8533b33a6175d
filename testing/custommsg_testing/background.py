"""Embedded nodes and a gateway in a thread of their own, for tests that may block or run an event loop themselves."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final, Self, TypeVar

import structlog

from custommsg_testing import devnode

T = TypeVar("T")

_TIMEOUT: Final = 30.0
"""Seconds that anything here may take to start or to stop."""


class BackgroundLoop:
    """An event loop that runs in a thread of its own, for as long as the context lasts."""

    def __enter__(self) -> Self:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._serve(started)), name="custommsg-testing")
        self._thread.start()
        self._loop = started.result(_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_TIMEOUT)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = _TIMEOUT) -> T:
        """Run a coroutine there, and return its result.

        Args:
            work: the coroutine.
            timeout: seconds.

        Raises:
            TimeoutError: it took longer.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter an asynchronous context there, and leave it at the end of this one."""
        value: Future[T] = Future()
        leave = asyncio.Event()

        async def hold() -> None:  # one task, since a context must be left by the task that has entered it
            try:
                async with manager as entered:
                    value.set_result(entered)
                    await leave.wait()
            except BaseException as error:
                if value.done():
                    raise
                value.set_exception(error)

        holding = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        try:
            yield value.result(_TIMEOUT)
        finally:
            self._loop.call_soon_threadsafe(leave.set)
            holding.result(_TIMEOUT)


class EmbeddedNode:
    """A small real Lightning node, without channels and without money, that runs in the background.

    Its methods block. In an asynchronous test, call those that wait for something with `asyncio.to_thread`.

    Args:
        loop: where it runs.
        node: the node.
    """

    def __init__(self, loop: BackgroundLoop, node: devnode.DevNode) -> None:
        self._loop, self._node = loop, node

    @property
    def id(self) -> bytes:
        """Its node id, 33 bytes."""
        return self._node.id

    @property
    def address(self) -> str:
        """Where peers find it, as host:port."""
        return str(self._node.address)

    @property
    def rpc_file(self) -> Path:
        """Its RPC socket, which takes the requests of lightningd's JSON-RPC that concern messages."""
        return self._node.rpc_file

    def connect(self, other: EmbeddedNode | str) -> None:
        """Connect to another node, given as such or as `id@host:port`.

        Raises:
            PeerError: it cannot be reached.
        """
        self._loop.run(self._node.connect(other if isinstance(other, str) else other._node))

    def disconnect(self, other: EmbeddedNode | bytes) -> None:
        """End the connection to another node, given as such or by its id; return when both sides know it.

        Raises:
            PeerError: it is not connected.
        """
        self._loop.run(self._node.disconnect(_id(other)))
        if isinstance(other, EmbeddedNode):
            self._loop.run(other._node.until_connected(self.id, connected=False))

    def send(self, to: EmbeddedNode | bytes, type: int, payload: bytes = b"") -> None:
        """Send a custom message to a connected node.

        Args:
            to: the node, or its id.
            type: the type of the message, 0 to 65,535.
            payload: what follows the type, at most 65,533 bytes.

        Raises:
            RelayError: the message is invalid, or of a type that the node handles itself.
            PeerError: the node is not connected.
        """
        self._loop.run(self._node.send(_id(to), type.to_bytes(2, "big") + payload))

    def receive(self, timeout: float = 10.0) -> devnode.Received:
        """Return the next custom message that has come in, and wait for it if there is none yet.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: none came in.
        """
        return self._loop.run(self._node.next_message(timeout), timeout + _TIMEOUT)

    def stop(self) -> None:
        """Stop the node, as `lightning-cli stop` does."""
        self._loop.run(self._node.stop())


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway without access control, the node that it runs on, and a peer that is connected to the node."""

    address: str
    node: EmbeddedNode
    peer: EmbeddedNode


@contextmanager
def run_nodes(loop: BackgroundLoop, count: int) -> Iterator[list[EmbeddedNode]]:
    """Run some nodes that are not connected, for as long as the context lasts."""
    with (
        tempfile.TemporaryDirectory(prefix="custommsg-") as folder,
        loop.entered(_nodes(folder, count)) as nodes,
    ):
        yield [EmbeddedNode(loop, node) for node in nodes]


@contextmanager
def run_gateway(loop: BackgroundLoop) -> Iterator[Gateway]:
    """Run a gateway on a node with a peer, for as long as the context lasts."""
    from custommsg_testing import gateway  # not above, because it imports gRPC and the whole server

    _log_as_logging_does()
    with (
        tempfile.TemporaryDirectory(prefix="custommsg-") as folder,
        loop.entered(gateway.run(Path(folder))) as running,
    ):
        yield Gateway(running.address, EmbeddedNode(loop, running.node), EmbeddedNode(loop, running.peer))


@asynccontextmanager
async def _nodes(folder: str, count: int) -> AsyncIterator[list[devnode.DevNode]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(devnode.run(Path(folder) / str(number)))
            for number in range(count)
        ]


def _log_as_logging_does() -> None:
    # Unconfigured, structlog prints to standard output, which belongs to the tests.
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )


def _id(node: EmbeddedNode | bytes) -> bytes:
    return node.id if isinstance(node, EmbeddedNode) else node
