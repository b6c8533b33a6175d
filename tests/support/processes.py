"""Our programs as real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Program:
    """A running program and what it printed to stderr."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        """Collect what it prints, until it ends."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self.changed:
                self.lines.append(line.decode())
                self.changed.notify_all()

    async def line(self, part: str) -> str:
        """Wait for a line that contains `part`, and return it."""

        def found() -> list[str]:
            return [line for line in self.lines if part in line]

        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: bool(found()))
        return found()[0]


@asynccontextmanager
async def server(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, first: str = ""
) -> AsyncIterator[Program]:
    """Run `custommsg-server` with JSON logs; kill it at the end if it still runs.

    Args:
        arguments: its command line.
        env: more of its environment.
        cwd: where it runs.
        first: Python that is run in its process before it.
    """
    # The command line of the client sets GRPC_VERBOSITY when it is imported, as other tests in this process do.
    inherited = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{first}\nfrom custommsg_server.__main__ import main\nmain()",
        *arguments,
        cwd=cwd,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,  # a line may quote a whole message in hex
        stdin=asyncio.subprocess.DEVNULL,
        env={**inherited, "CUSTOMMSG_LOG_FORMAT": "json", **(env or {})},
    )
    program = Program(process)
    reading = asyncio.create_task(program.read())
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
