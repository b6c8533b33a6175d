"""What a stranger's request costs before it is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from heavy.test_memory import Memory
from support import processes, standin

CONNECTIONS, CALLS, SIZE, LIMIT = 8, 25, 3_900_000, 100_000_000


@pytest.mark.heavy
@pytest.mark.xfail(
    strict=True, reason="gRPC reads the request of a unary call before our code is asked whether to let it in"
)
async def test_large_requests_without_a_credential_are_not_kept(short_path: Path) -> None:
    """200 calls of 4 MB at once, whose metadata alone says that they are refused."""
    async with standin.running(short_path / "lightning-rpc") as node:
        arguments = (
            "--listen",
            "127.0.0.1:0",
            "--rpc-file",
            str(node.rpc_file),
            "--data-dir",
            str(short_path / "d"),
        )
        async with processes.server("serve", *arguments) as program:
            address = json.loads(await program.line("gateway listening"))["addresses"][0]
            memory = Memory(program.process.pid)
            own = (("grpc.use_local_subchannel_pool", 1),)
            channels = [grpc.aio.insecure_channel(address, own) for _ in range(CONNECTIONS)]
            path = "/custommsg.v1.CustomMsgService/SendCustomMsg"
            sends = [channel.unary_unary(path, bytes, bytes) for channel in channels]
            calls = [send(bytes(SIZE), timeout=30) for send in sends for _ in range(CALLS)]
            codes = await asyncio.gather(*(call.code() for call in calls))
            for channel in channels:
                await channel.close()
            assert grpc.StatusCode.OK not in codes
            print(f"{memory.growth() / 1e6:.0f} MB")
            assert memory.growth() < LIMIT
