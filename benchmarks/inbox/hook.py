"""lightningd's end of the plugin channel: hook calls as fast as the gateway takes them, or as they are due."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

from benchmarks.inbox.disk import PEER, message
from benchmarks.load.pace import pace

_CHUNK: Final = 16
"""Hook calls that are written at once."""
_CONTINUE: Final = {"result": "continue"}


class Hook:
    """One lightningd.

    Args:
        reader: what the gateway writes.
        writer: to the gateway.
        size: bytes of each message.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        self._reader = reader
        self._writer = writer
        self._next_id = 0
        self._answered = 0
        self._has_answered = asyncio.Event()
        # Written by hand, as lightningd is quicker than json.dumps: head, number, middle, time, tail.
        marked = message(size, 1).hex()
        before, after = marked.split(f"{1:016x}", 1)
        self._middle = f'","method":"custommsg","params":{{"payload":"{before}'
        self._tail = f'{after}","peer_id":"{PEER.hex()}"}}}}\n\n'

    async def introduce(self, folder: Path) -> None:
        """Do what lightningd does before the first hook call."""
        await self._ask("getmanifest", {"allow-deprecated-apis": False})
        configuration = {
            "lightning-dir": str(folder),
            "rpc-file": "lightning-rpc",
            "startup": False,
            "network": "regtest",
        }
        await self._ask("init", {"options": {}, "configuration": configuration})

    async def send_all(self, count: int) -> None:
        """Make hook calls without a pause; wait until all are answered."""
        answered = self._answered + count
        for first in range(0, count, _CHUNK):
            calls = [self._call(perf_counter_ns()) for _ in range(min(_CHUNK, count - first))]
            self._writer.write("".join(calls).encode())
            await self._writer.drain()
        await self._wait_answered(answered)

    async def send_at(self, rate: float, count: int) -> None:
        """Make hook calls when they are due; wait until all are answered."""
        answered, sent, over = self._answered + count, 0, asyncio.Event()

        def send(due: float) -> None:
            nonlocal sent
            if sent < count:
                self._writer.write(self._call(int(due * 1e9)).encode())
                sent += 1
            else:
                over.set()

        await pace(rate, over, send)
        await self._wait_answered(answered)

    async def read_answers(self) -> None:
        """Take the gateway's answers, until the channel ends.

        Raises:
            AssertionError: one of them would have ended lightningd.
        """
        rest = b""
        while data := await self._reader.read(1 << 18):
            *answers, rest = (rest + data).split(b"\n\n")
            for answer in answers:
                assert json.loads(answer)["result"] == _CONTINUE, answer
            self._answered += len(answers)
            self._has_answered.set()

    async def _wait_answered(self, count: int) -> None:
        while self._answered < count:
            self._has_answered.clear()
            await self._has_answered.wait()

    def _call(self, due_ns: int) -> str:
        self._next_id += 1
        number = self._next_id
        return f'{{"jsonrpc":"2.0","id":"cln:custommsg#{number}{self._middle}{due_ns:016x}{self._tail}'

    async def _ask(self, method: str, params: dict[str, Any]) -> None:
        call = {"jsonrpc": "2.0", "id": f"cln:{method}#0", "method": method, "params": params}
        self._writer.write(json.dumps(call).encode() + b"\n\n")
        answer = json.loads(await self._reader.readuntil(b"\n\n"))
        assert "result" in answer, answer


def token_line(folder: Path) -> bytes:
    """Return what the gateway's script sends first: the gateway takes no connection without it."""
    script = (folder / "custommsg-attach").read_text()
    return script.partition("\ntoken=")[2].partition("\n")[0].encode() + b"\n"


@asynccontextmanager
async def attached(folder: Path, size: int) -> AsyncIterator[Hook]:
    """Attach to the gateway whose plugin socket is in `folder`."""
    reader, writer = await asyncio.open_unix_connection(folder / "plugin.sock", limit=1 << 20)
    writer.write(token_line(folder))
    hook = Hook(reader, writer, size)
    await hook.introduce(folder)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(hook.read_answers())
        yield hook
        reading.cancel()
        writer.close()
