"""The embedded node in lightningd's place: it takes lightningd's command line, as far as manifests use it.

python as_lightningd.py --lightning-dir=... --network=regtest --rpc-file=... --rpc-file-mode=0660
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from custommsg_testing import devnode


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until it ends."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(options: argparse.Namespace) -> None:
    """Run the node; its socket is where lightningd's would be, and as open, in a process of the same user."""

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node_reader, node_writer = await asyncio.open_unix_connection(node.rpc_file)
        await asyncio.gather(copy(reader, node_writer), copy(node_reader, writer))

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with devnode.run(options.lightning_dir, options.network) as node:
        before = os.umask(options.rpc_file_mode ^ 0o777)
        server = await asyncio.start_unix_server(passed_on, options.rpc_file)
        os.umask(before)
        print(f"{node.id.hex()}@{node.address}", flush=True)
        await stop.wait()
        server.close()


def main() -> None:
    """Read the options; what the embedded node knows nothing of is passed over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lightning-dir", type=Path, required=True)
    parser.add_argument("--network", default="bitcoin")
    parser.add_argument("--rpc-file", type=Path, required=True)
    parser.add_argument("--rpc-file-mode", type=lambda text: int(text, 8), default=0o600)
    asyncio.run(serve(parser.parse_known_args()[0]))


if __name__ == "__main__":
    main()
