"""`custommsg-server try`: what it prints works, and its peer does not get lost."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from custommsg_testing import gateway

BIN = Path(sys.executable).parent


@asynccontextmanager
async def trying(*options: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run the command; yield what it prints."""
    process = await asyncio.create_subprocess_exec(
        BIN / "custommsg-server", "try", "--listen", "127.0.0.1:0", *options, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        await process.communicate()
        assert process.returncode == 0


async def shell(command: str) -> str:
    """Run a command that was printed for the folder of the repository; return what it prints."""
    process = await asyncio.create_subprocess_shell(command.replace(".venv/bin", str(BIN)), stdout=PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out.decode()


async def test_the_commands_that_it_prints_send_a_message() -> None:
    """The command line, grpcurl and Python, as they are printed; the message shows up below."""
    async with trying() as printed:
        welcome = (await printed.readuntil(b"Ctrl-C ends everything.\n")).decode()
        commands = welcome.replace("\\\n", "").split("\n\n")
        to_run = [
            each.strip()
            for each in commands
            if each.strip().startswith(".venv/bin") and " listen" not in each
        ]
        assert [Path(each.split()[0]).name for each in to_run] == ["custommsg", "grpcurl", "python"]
        for command in to_run:
            assert "40001" in await shell(command)
            while b"peer received" not in (line := await printed.readline()):
                assert line
            assert line == b"peer received  type 40001  5 bytes  hello\n"


async def test_it_speaks_json_to_programs() -> None:
    """First what runs where, then the messages."""
    async with trying("--json") as printed:
        running = json.loads(await printed.readline())
        assert running.keys() == {"address", "node_id", "peer_id"}
        await shell(
            f".venv/bin/custommsg send {running['peer_id']} --address {running['address']} --type 40001 --text hi"
        )
        assert json.loads(await printed.readline()) == {"type": 40001, "payload": b"hi".hex()}


async def test_the_peer_comes_back_after_a_message_that_it_does_not_accept(short_path: Path) -> None:
    """An even type ends the connection (BOLT 1), and is the first thing that many people try."""
    async with gateway.run(short_path, keep_peer=True) as running:
        for _ in range(2):
            await running.node.send(running.peer.id, b"\x9c\x42")
            await running.node.until_connected(running.peer.id, connected=False)
            await running.node.until_connected(running.peer.id)
        await running.node.send(running.peer.id, b"\x9c\x41")
        assert (await running.peer.next_message()).message == b"\x9c\x41"
