"""The two ways to run a node: within a test, and as a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from custommsg_testing.devnode.node import ALIAS, DevNode, OnMessage, Settings


class WouldHaveDiedError(AssertionError):
    """Something that real lightningd would not have survived reached the node."""


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
    """Run a node while the block runs.

    Args:
        directory: its lightning-dir; the same directory gives the same node again.
        network: lightningd's name of it.
        listen: where peers find it; port 0 takes a free one.
        plugins: executables to start with it, as lightningd's `plugin=`.
        options: values for the plugins' options, by name.
        even_types: even types of custom messages to accept beside those of the plugins.
        on_message: called with the node and each message that comes in; may be async, and may send.
        alias: what getinfo calls it.
        strict: fail at the end when something came in that real lightningd would not have survived;
            a test that means to do that empties `node.would_have_died`.

    Raises:
        WouldHaveDiedError: see `strict`.
        DirectoryError: the directory cannot be used.
        OSError: an address cannot be had.
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
        directory: as of `run`, like the others that are not named here.
        network: see there.
        listen: see there.
        connect: peers to connect to, as `id@host:port`.
        plugins: see there.
        options: see there.
        even_types: see there.
        on_message: see there.
        ready: called once when all of it is up.

    Raises:
        PeerError: a peer of `connect` cannot be reached.
        DirectoryError: the directory cannot be used.
        OSError: an address cannot be had.
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
            await node.connect(peer)
        if ready is not None:
            ready(node)
        await node.stopped.wait()
