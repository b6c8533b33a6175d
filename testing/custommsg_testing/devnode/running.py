"""The two ways to run a node: in a test, and as a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from custommsg_testing.devnode.node import ALIAS, DevNode, OnMessage, Settings


class WouldHaveDiedError(AssertionError):
    """Something reached the node that real lightningd would not have survived."""


@asynccontextmanager
async def run(
    directory: Path | str,
    network: str = "regtest",
    listen: str = "127.0.0.1:0",
    *,
    plugins: Sequence[Path | str] = (),
    options: Mapping[str, object] | None = None,
    even_types: Collection[int] = (),
    on_message: OnMessage | None = None,
    alias: str = ALIAS,
    strict: bool = True,
) -> AsyncIterator[DevNode]:
    """Run a node for as long as the context lasts.

    Args:
        directory: its lightning-dir. The same directory makes the same node again.
        network: lightningd's name of the network.
        listen: where peers find it; with port 0, the system chooses a free port.
        plugins: executables to start with it, as lightningd's `plugin=`.
        options: values for the plugins' options, by name.
        even_types: even types of custom messages to accept beside those of the plugins.
        on_message: called with the node and each message that comes in; may be async, and may send.
        alias: what getinfo calls it.
        strict: fail at the end if something came in that real lightningd would not have survived. A test that does
            this on purpose clears `node.would_have_died`.

    Raises:
        WouldHaveDiedError: see `strict`.
        DirectoryError: the directory cannot be used.
        OSError: the address cannot be used.
    """
    settings = Settings(
        Path(directory),
        network,
        listen,
        alias=alias,
        even_types=even_types,
        on_message=on_message,
        plugins=[Path(plugin) for plugin in plugins],
        options=options or {},
    )
    node = DevNode(settings)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
    if strict and node.would_have_died:
        raise WouldHaveDiedError("; ".join(node.would_have_died))


async def serve(
    directory: Path | str,
    network: str = "regtest",
    listen: str = "127.0.0.1:0",
    *,
    connect: Sequence[str] = (),
    plugins: Sequence[Path | str] = (),
    options: Mapping[str, object] | None = None,
    even_types: Collection[int] = (),
    on_message: OnMessage | None = None,
    ready: Callable[[DevNode], None] | None = None,
) -> None:
    """Run a node until its `stop` command, or until this is cancelled.

    Args:
        directory: see `run`, for this and the other parameters without a description.
        network: see `run`.
        listen: see `run`.
        connect: peers to connect to, as `id@host:port`, and again whenever the connection ends.
        plugins: see `run`.
        options: see `run`.
        even_types: see `run`.
        on_message: see `run`.
        ready: called once, when the node listens and all peers are connected.

    Raises:
        PeerError: a peer of `connect` cannot be reached.
        DirectoryError: the directory cannot be used.
        OSError: the address cannot be used.
    """
    async with run(
        directory,
        network,
        listen,
        plugins=plugins,
        options=options,
        even_types=even_types,
        on_message=on_message,
        strict=False,
    ) as node:
        for peer in connect:
            await node.connect(peer, keep=True)
        if ready is not None:
            ready(node)
        await node.stopped.wait()
