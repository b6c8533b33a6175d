"""An attacker in its own process: its start, its end and its output."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PYTHONPATH: Final = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
"""PYTHONPATH for the processes that this one starts."""
READY: Final = "ready"


@dataclass(frozen=True, slots=True)
class Job:
    """The input of an attacker.

    Args:
        arguments: its command line.
        draw: its source of random numbers.
        count: the number of its actions, by name; printed at its end.
    """

    arguments: argparse.Namespace
    draw: random.Random
    count: Counter[str] = field(default_factory=Counter)

    def ready(self) -> None:
        """Say that the attack has begun."""
        print(READY, flush=True)


async def again_and_again(step: Callable[[], Awaitable[None]], pause: float) -> None:
    """Repeat a step forever; ignore its errors, which an attacker has to expect."""
    while True:
        with suppress(Exception):
            await step()
        await asyncio.sleep(pause)


def run(parser: argparse.ArgumentParser, main: Callable[[Job], Awaitable[None]]) -> None:
    """Run an attacker until SIGTERM, then print what it did."""
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--nice", type=int, default=0)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    job = Job(arguments, random.Random(arguments.seed))

    async def until_signal() -> None:
        work = asyncio.ensure_future(main(job))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work

    asyncio.run(until_signal())
    print(json.dumps(job.count), flush=True)
    os._exit(0)  # so its connections break without being closed


class Actor:
    """Controls the process of an attacker.

    Args:
        name: its module.
        log: where its stderr goes.
        arguments: its command line.
    """

    def __init__(self, name: str, log: Path, *arguments: object) -> None:
        self.name = name
        self._log = log
        self._command = (sys.executable, "-m", f"hostile.{name}", *map(str, arguments))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until its attack has begun."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": PYTHONPATH, "GRPC_VERBOSITY": "NONE"},
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        if line.decode().strip() != READY:
            raise RuntimeError(f"the attacker {self.name} did not start; see {self._log}")

    async def stop(self) -> Counter[str]:
        """End it; return what it did."""
        process = self._process
        assert process is not None
        if process.returncode is not None:
            raise RuntimeError(f"the attacker {self.name} has ended by itself; see {self._log}")
        process.terminate()
        said: Any = {}
        try:
            async with asyncio.timeout(10):
                out, _ = await process.communicate()
            said = json.loads(out or "{}")
        except TimeoutError:
            process.kill()
            await process.wait()
        return Counter(said)

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
