"""The two kinds of node that the contract tests run over: the embedded one and real lightningd."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyln.client import LightningRpc

from custommsg_testing import devnode

BACKEND = Path(__file__).with_name("genesis_backend.py")


@dataclass(frozen=True)
class Node:
    """A node under test, and one peer that is connected to it."""

    kind: str
    id: bytes
    rpc_file: Path
    address: str
    peer: devnode.DevNode

    def rpc(self) -> LightningRpc:
        """Return pyln-client's view of it."""
        return LightningRpc(str(self.rpc_file))

    async def call(self, method: str, **params: Any) -> Any:
        """Make a JSON-RPC call with pyln-client, which blocks, in a thread."""
        return await asyncio.to_thread(self.rpc().call, method, params)


RunningNode = AbstractAsyncContextManager[Node]


def find_lightningd() -> str | None:
    """Return the lightningd to test with: LIGHTNINGD, or the one on PATH."""
    return os.environ.get("LIGHTNINGD") or shutil.which("lightningd")


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Node]:
    """Run the embedded node with a peer."""
    async with devnode.run(directory / "node") as node, devnode.run(directory / "peer") as peer:
        await peer.connect(node)
        yield Node("embedded", node.id, node.rpc_file, str(node.address), peer)


@asynccontextmanager
async def lightningd(directory: Path) -> AsyncIterator[Node]:
    """Run real lightningd on a chain of one block, with an embedded peer."""
    async with lightningd_process(directory / "node") as (node_id, rpc_file, address):
        async with devnode.run(directory / "peer") as peer:
            await peer.connect(f"{node_id.hex()}@{address}")
            yield Node("lightningd", node_id, rpc_file, address, peer)


@asynccontextmanager
async def lightningd_process(
    directory: Path, port: int | None = None, *options: str
) -> AsyncIterator[tuple[bytes, Path, str]]:
    """Run lightningd; yield its id, its socket and its address. It is killed at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or _free_port()
    program = find_lightningd()
    assert program is not None
    log = directory / "log"
    log.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        program,
        f"--lightning-dir={directory}",
        "--network=regtest",
        "--disable-plugin=bcli",
        f"--plugin={BACKEND}",
        f"--bind-addr=127.0.0.1:{port}",
        f"--log-file={log}",
        "--log-level=debug",
        "--developer",
        "--dev-bitcoind-poll=1",
        "--dev-fast-gossip",
        "--disable-dns",
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    try:
        # The RPC answers before the node listens for peers, so only the log tells.
        async with asyncio.timeout(30):
            while not log.exists() or "Server started with public key" not in log.read_text():
                assert process.returncode is None, log.read_text() if log.exists() else "no log"
                await asyncio.sleep(0.02)
        rpc_file = directory / "regtest" / "lightning-rpc"
        info = await asyncio.to_thread(LightningRpc(str(rpc_file)).getinfo)
        yield bytes.fromhex(info["id"]), rpc_file, f"127.0.0.1:{port}"
        assert process.returncode is None, "lightningd died:\n" + log.read_text()[-2000:]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
