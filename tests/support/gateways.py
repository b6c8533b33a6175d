"""A gateway for a test: in this process, on a port that was free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from custommsg_server import app
from custommsg_server.settings import Settings, load


def settings(rpc_file: Path, **more: Any) -> Settings:
    """Return settings that suit tests: short times, a free port."""
    quick: dict[str, Any] = {
        "listen": ("127.0.0.1:0",),
        "rpc_file": rpc_file,
        "drain_time": 5.0,
        "node_probe_interval": 1.0,
        "heartbeat": 0.5,
        "insecure": True,
    }
    return load(quick | more, environ={})


@asynccontextmanager
async def gateway(rpc_file: Path, **more: Any) -> AsyncIterator[str]:
    """Run a gateway on the node at `rpc_file`; yield its address."""
    async with app.running(settings(rpc_file, **more)) as running:
        yield str(running.addresses[0])
