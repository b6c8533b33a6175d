"""The embedded node and LDK exchange messages: another implementation of the protocol agrees with ours."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode

HERE = Path(__file__).parent
COUNT = 2500
TYPES = (32769, 37913, 40000, 65535)
SIZES = (0, 1, 100, 1000, 65_533)

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js"),
    pytest.mark.skipif(not (HERE / "node_modules").is_dir(), reason="needs LDK: run `make test-ldk`"),
]


def message(number: int) -> bytes:
    """Return the message of this number, as peer.mjs makes it."""
    fill = bytes([(number + 1) % 256]) * SIZES[number % len(SIZES)]
    payload = (number.to_bytes(4, "big") + fill)[:65_533]
    return TYPES[number % len(TYPES)].to_bytes(2, "big") + payload


class Ldk:
    """The LDK peer's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> dict[str, Any]:
        """Read the next thing that it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 50)
        assert line, "LDK has ended"
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def ldk(*arguments: str) -> AsyncIterator[Ldk]:
    """Run the LDK peer."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "peer.mjs"),
        str(COUNT),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Ldk(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize("who_dials", ["ldk", "devnode"])
async def test_2500_messages_pass_in_both_directions_at_once(tmp_path: Path, who_dials: str) -> None:
    """Content and order are right on both sides, messages of 65,535 bytes and an even type included."""
    async with devnode.run(tmp_path, even_types={40000}) as node:
        if who_dials == "ldk":
            arguments = ["dial", node.id.hex(), node.address.host, str(node.address.port)]
        else:
            arguments = ["listen"]
        async with ldk(*arguments) as peer:
            hello = await peer.line()
            peer_id = bytes.fromhex(hello["id"])
            if who_dials == "devnode":
                await node.connect(f"{hello['id']}@127.0.0.1:{hello['port']}")
            await node.until_connected(peer_id)
            await asyncio.gather(_send(node, peer_id), _receive(node, peer_id))
            digest = hashlib.sha256()
            for number in range(COUNT):
                sent = message(number)
                digest.update(sent[:2] + (len(sent) - 2).to_bytes(4, "big") + sent[2:])
            assert await peer.line() == {"received": COUNT, "sha256": digest.hexdigest()}


async def _send(node: DevNode, peer_id: bytes) -> None:
    for number in range(COUNT):
        await node.send(peer_id, message(number))


async def _receive(node: DevNode, peer_id: bytes) -> None:
    for number in range(COUNT):
        received = await node.next_message(timeout=30)
        assert received.peer_id == peer_id
        # Not one assertion: to compare 65,535 bytes in words takes pytest minutes.
        if received.message != message(number):
            pytest.fail(f"message {number} came out as {received.message[:20].hex()}...")
