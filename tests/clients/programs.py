"""The client programs, as a test sees them: a process that makes the calls it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.rpc import error_details_pb2, status_pb2

HERE: Final = Path(__file__).parent
LINE_LIMIT: Final = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What became of a call, as the client saw it."""

    code: str
    """The name of the status code, or what the client itself says."""
    text: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(f"`{part}`" for part in (self.code, self.reason) if part)


class Client:
    """A running client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._events: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def call(self, name: str, **arguments: Any) -> Outcome:
        """Have it make a call, and wait for what becomes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": name, "arguments": arguments}).encode() + b"\n")
        answer = asyncio.create_task(self._outcomes.get())
        await asyncio.wait({answer, self._reader}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise AssertionError(f"{name} was not answered")
        return answer.result()

    async def event(self, timeout: float = 20) -> tuple[bytes, bytes]:
        """Return the next message that it received, and the peer.

        Raises:
            TimeoutError: there was none.
        """
        async with asyncio.timeout(timeout):
            return await self._events.get()

    async def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if event := said.get("event"):
                self._events.put_nowait((bytes.fromhex(event["peer"]), bytes.fromhex(event["message"])))
            else:
                outcome = said["outcome"]
                reason = _reason(bytes.fromhex(outcome.get("details") or ""))
                self._outcomes.put_nowait(Outcome(outcome["code"], outcome.get("text", ""), reason))


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[Client]:
    """Run a client program."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_LIMIT
    )
    client = Client(process)
    try:
        yield client
    finally:
        await client.stop()


def _reason(details: bytes) -> str:
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    return info.reason if status.details and status.details[0].Unpack(info) else ""
