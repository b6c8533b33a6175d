"""Fixtures for the tests of the client: a scripted gateway, and both clients behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import custommsg
from custommsg import _reconnect
from support.client_gateway import ScriptedGateway, run


class Either:
    """One of the two clients, awaited: what holds for one is tested for both."""

    def __init__(self, kind: str, address: str, **settings: Any) -> None:
        self.kind = kind
        self.client: Any = getattr(custommsg, kind).connect(address, **settings)

    async def __call__(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the client."""
        call = getattr(self.client, method)
        if self.kind == "aio":
            return await call(*arguments, **keywords)
        return await asyncio.to_thread(call, *arguments, **keywords)

    def subscribe(self, **arguments: Any) -> Listening:
        """Make a subscription, awaited likewise."""
        return Listening(self, self.client.subscribe(**arguments))


class Listening:
    """A subscription of either client, awaited."""

    def __init__(self, client: Either, subscription: Any) -> None:
        self._blocking = client.kind == "sync"
        self.subscription: Any = subscription

    async def next(self) -> Any:
        """Return the next event; None at the end."""
        if self._blocking:
            return await asyncio.to_thread(next, self.subscription, None)
        return await anext(self.subscription, None)

    async def take(self, count: int) -> list[Any]:
        """Return the next events."""
        return [await self.next() for _ in range(count)]

    async def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method of the subscription."""
        call = getattr(self.subscription, method)
        return await (asyncio.to_thread(call, *arguments) if self._blocking else call(*arguments))


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
    """Spare the tests the waits between connections; how long they are is tested without a network."""
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
