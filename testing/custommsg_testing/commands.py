"""The commands `try` and `devnode`, which this package adds to `custommsg-server`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from custommsg_server.domain.errors import UserError
from custommsg_server.ops import logs
from custommsg_server.ops.process import run, until_signal
from custommsg_testing import devnode, tryout


def register(cli: App) -> None:
    """Add the commands. `custommsg-server` calls this through the entry point group `custommsg_server.commands`."""
    cli.command(try_out, name="try")
    cli.command(run_devnode, name="devnode")


def try_out(
    *,
    listen: Annotated[str, Parameter(help="Where the gateway listens.")] = "127.0.0.1:9737",
    json: Annotated[bool, Parameter(help="Print one JSON object a line, for a program.")] = False,
) -> int:
    """Run a gateway on an embedded node with a peer, to try it out."""
    logs.configure("warning", "auto")
    run(until_signal(lambda stop: tryout.try_out(listen, json, stop)))
    return 0


def run_devnode(
    *,
    lightning_dir: Annotated[Path, Parameter(help="The directory of the node, where its key is kept.")],
    network: Annotated[str, Parameter(help="The network, as lightningd names it.")] = "regtest",
    listen: Annotated[
        str, Parameter(help="Where it listens for peers. With port 0, the system chooses a free port.")
    ] = "127.0.0.1:0",
    connect: Annotated[
        tuple[str, ...], Parameter(help="Peers to connect to, and to stay connected to: ID@HOST:PORT.")
    ] = (),
    plugin: Annotated[tuple[Path, ...], Parameter(help="Plugins to start with the node.")] = (),
    even_type: Annotated[
        tuple[int, ...], Parameter(help="Even types of custom messages to accept. Others end the connection.")
    ] = (),
) -> int:
    """Run the embedded node: a small real Lightning node, without channels and without money."""
    logs.configure("info", "auto")

    async def serve(stop: asyncio.Event) -> None:
        node = asyncio.ensure_future(
            devnode.serve(
                lightning_dir,
                network,
                listen,
                connect=connect,
                plugins=plugin,
                even_types=even_type,
                ready=_show,
            )
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({node, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (node, stopping):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await node

    try:
        run(until_signal(serve))
    except (devnode.DirectoryError, devnode.PeerError) as error:
        raise UserError(str(error)) from None
    return 0


def _show(node: devnode.DevNode) -> None:
    print(f"{node.id.hex()}@{node.address}  rpc-file {node.rpc_file}", flush=True)  # noqa: T201
