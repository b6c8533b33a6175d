"""Fixtures for the tests of the client: a scripted gateway, and both clients behind one interface."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from custommsg import _reconnect
from custommsg_cli.__main__ import main
from support.client_gateway import ScriptedGateway, run
from support.command import Done, Run
from support.either import Either

Connect = Callable[..., Either]


@pytest.fixture(params=["aio", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Make clients of either kind, closed at the end."""
    made: list[Either] = []

    def connect(address: str, **settings: Any) -> Either:
        made.append(Either(request.param, address, **settings))
        return made[-1]

    yield connect
    for client in made:
        await client("close")


@pytest.fixture(autouse=True)
def reconnect_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between connections; how long they are is tested without a network."""
    monkeypatch.setattr(_reconnect, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(_reconnect, "MAX_WAIT", 0.002)


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    """Run a gateway that answers by a script."""
    async with run() as gateway:
        yield gateway


@pytest.fixture
def client(connect: Connect, gateway: ScriptedGateway) -> Either:
    """Connect each of the clients to the scripted gateway."""
    return connect(gateway.address)


@pytest.fixture
def cli(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, against the scripted gateway."""
    monkeypatch.setenv("CUSTOMMSG_ADDRESS", gateway.address)

    async def run(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = await asyncio.to_thread(main, arguments)
        return Done(status, *capsys.readouterr())

    return run
