"""Health checks of container runtimes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from custommsg_server.api.service import SERVICE
from support.gateways import gateway
from support.standin import StandIn

PROGRAMS = (("custommsg_server", "health"), ("custommsg_server.ops.probe",))


async def ask(program: tuple[str, ...], *arguments: str) -> tuple[int | None, str]:
    """Run a health check; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode().strip()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_gateway_that_serves_is_healthy(program: tuple[str, ...], short_path: Path) -> None:
    """The process is healthy, over TCP and over a unix socket; without a node the service is not."""
    socket = f"unix:{short_path}/grpc.sock"
    async with gateway(short_path / "nothing", listen=("127.0.0.1:0", socket)) as address:
        for where in (address, socket):
            assert await ask(program, "--address", where) == (0, "SERVING")
        assert await ask(program, "--address", socket, "--service", SERVICE) == (1, "NOT_SERVING")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_silence_is_said_with_its_reason(program: tuple[str, ...], node: StandIn) -> None:
    """Without a gateway, the error has the reason and no stack trace."""
    status, said = await ask(program, "--address", f"unix:{node.rpc_file}.none")
    assert status == 1
    assert said.startswith("UNAVAILABLE: ")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_unknown_service_is_named_with_those_that_there_are(
    program: tuple[str, ...], node: StandIn
) -> None:
    """So that a typo in a probe is found."""
    async with gateway(node.rpc_file) as address:
        status, said = await ask(program, "--address", address, "--service", "custommsg.v1.CustomMsg")
    assert status == 1
    assert said.startswith("NOT_FOUND: This gateway has no service 'custommsg.v1.CustomMsg'.")
    assert SERVICE in said
