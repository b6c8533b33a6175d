"""The engines of the inbox, each with what its test needs beside the port: other hands on the same inbox."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from pathlib import Path

from custommsg_server.inbox.port import Inbox, Position
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.writer import WriterOptions
from support.inboxes import FOREVER, FaultyStore
from support.memory_inbox import Log, MemoryInbox

NEVER = 1e6
QUICK = WriterOptions(prune_interval=NEVER, backoff_min=0.001, backoff_max=0.01, max_waiting=0)


class Engine(ABC):
    """An engine under test.

    Args:
        folder: where it may keep files.
        stack: closes what was opened.
    """

    has_second_writer = False

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack

    @abstractmethod
    async def open(self, heartbeat: float = NEVER) -> Inbox:
        """Open the inbox, or open it again after it was closed."""

    @abstractmethod
    async def open_other(self) -> Inbox:
        """Open another inbox, which has nothing to do with this one."""

    async def second_writer(self) -> Inbox:
        """Open the inbox once more, while it is open."""
        raise NotImplementedError

    @abstractmethod
    def after(self, position: Position) -> Position:
        """Return a position far after one, as only this inbox could have made."""

    @abstractmethod
    async def delete_oldest(self, count: int) -> None:
        """Delete events as the retention does."""

    @abstractmethod
    async def delete(self, position: Position) -> None:
        """Delete a single event, which need not be the oldest."""

    @abstractmethod
    def fail(self, why: str | None) -> None:
        """Let storing fail from now on, or work again."""


class SqliteEngine(Engine):
    """The SQLite engine with the events of last in memory, as it is used."""

    recent_size = 8 << 20
    _age = 1 << 62

    async def open(self, heartbeat: float = NEVER) -> SqliteInbox:
        self.inbox = await self._open(self.folder / "inbox.db", heartbeat)
        return self.inbox

    async def open_other(self) -> SqliteInbox:
        return await self._open(self.folder / "other.db", NEVER)

    async def _open(self, path: Path, heartbeat: float) -> SqliteInbox:
        options = SqliteOptions(recent_size=self.recent_size, heartbeat=heartbeat, writer=QUICK)
        return await self.stack.enter_async_context(SqliteInbox(path, FOREVER, options, FaultyStore))

    @property
    def _store(self) -> FaultyStore:
        assert isinstance(self.inbox._store, FaultyStore)
        return self.inbox._store

    def after(self, position: Position) -> Position:
        name, _, sequence = position.rpartition("-")
        return Position(f"{name}-{int(sequence) + 1000}")

    async def delete_oldest(self, count: int) -> None:
        # Far ahead, and further each time: after a restart the age clock goes on from what it was told last.
        self._age += 1 << 52
        deleted = await asyncio.to_thread(self._store.prune, Retention(0, 0), self._age, count)
        assert deleted == count
        self.inbox._feed.forget(self._store.held().floor)  # as the writer's report would

    async def delete(self, position: Position) -> None:
        with self._store._writing() as connection:
            connection.execute("DELETE FROM events WHERE sequence = ?", (int(position.rpartition("-")[2]),))

    def fail(self, why: str | None) -> None:
        self._store.fails = why


class ForgetfulSqliteEngine(SqliteEngine):
    """The SQLite engine with nothing in memory: subscribers read the file."""

    recent_size = 0


class MemoryEngine(Engine):
    """The engine in memory."""

    has_second_writer = True

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        super().__init__(folder, stack)
        self._log = Log("one")

    async def open(self, heartbeat: float = NEVER) -> MemoryInbox:
        return self._open(self._log, heartbeat)

    async def open_other(self) -> MemoryInbox:
        return self._open(Log("other"), NEVER)

    async def second_writer(self) -> MemoryInbox:
        return self._open(self._log, NEVER)

    def _open(self, log: Log, heartbeat: float) -> MemoryInbox:
        inbox = MemoryInbox(log, heartbeat)
        self.stack.push_async_callback(inbox.close)
        return inbox

    def after(self, position: Position) -> Position:
        return self._log.position(int(position[1:].partition("/")[0], 16) + 1000)

    async def delete_oldest(self, count: int) -> None:
        self._log.delete_oldest(count)

    async def delete(self, position: Position) -> None:
        self._log.delete(position)

    def fail(self, why: str | None) -> None:
        self._log.fails = why
