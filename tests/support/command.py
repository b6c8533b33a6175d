"""The command `custommsg`, run in this process or in its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Done]]
"""(*arguments, stdin=b"") -> Done."""


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start it as a process, its output on pipes."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "custommsg_cli",
        *arguments,
        stdout=pipe,
        stderr=pipe,
        env={**os.environ, **environment},
    )
