"""Both clients behind one asynchronous interface, so that one test runs for both."""

from __future__ import annotations

import asyncio
from typing import Any

import custommsg


class Either:
    """One of the two clients, with methods that are awaited."""

    def __init__(self, kind: str, address: str, **settings: Any) -> None:
        self.kind = kind
        self.client: Any = getattr(custommsg, kind).connect(address, **settings)

    async def __call__(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the client."""
        call = getattr(self.client, method)
        if self.kind == "aio":
            return await call(*arguments, **keywords)
        return await asyncio.to_thread(call, *arguments, **keywords)

    async def list_events(self, **arguments: Any) -> list[Any]:
        """Return all that `list_events` yields."""
        events = self.client.list_events(**arguments)
        if self.kind == "aio":
            return [event async for event in events]
        return await asyncio.to_thread(list, events)

    def subscribe(self, **arguments: Any) -> Listening:
        """Make a subscription, with methods that are awaited, too."""
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
