"""An SQLite inbox and what it says of its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import FOREVER, FaultyStore

QUICK = SqliteOptions(
    writer=WriterOptions(prune_interval=0.02, backoff_min=0.01, backoff_max=0.02, max_waiting=0)
)
"""Tries again soon, and keeps nothing while the store fails."""


class Watched:
    """An inbox and what it said about its health."""

    def __init__(self, inbox: SqliteInbox) -> None:
        self.inbox = inbox
        self.errors: list[str | None] = []
        self._changed = asyncio.Event()
        inbox.watch(self._take)

    @property
    def store(self) -> FaultyStore:
        """The store behind it."""
        assert isinstance(self.inbox._store, FaultyStore)
        return self.inbox._store

    def _take(self, error: str | None) -> None:
        self.errors.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[str | None], bool]) -> None:
        """Wait for what it says."""
        while not condition(self.inbox.error):
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def running(
    path: Path,
    options: SqliteOptions = QUICK,
    open_store: Callable[[Path], SqliteStore] = FaultyStore,
    retention: Retention = FOREVER,
) -> AsyncIterator[tuple[SqliteInbox, Watched]]:
    async with SqliteInbox(path, retention, options, open_store) as inbox:
        yield inbox, Watched(inbox)


def is_well(error: str | None) -> bool:
    return error is None
