"""Drafts, and an SQLite outbox whose file fails or whose clock a test sets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from custommsg_server.domain.outbox import Draft, Outcome, State, Waiting
from custommsg_server.domain.wire import join_message
from custommsg_server.outbox.port import Bounds, Enqueued, OutboxError
from custommsg_server.outbox.sqlite.outbox import SqliteOutbox
from custommsg_server.outbox.sqlite.store import Job, OutboxStore
from support.keys import node_id

ALICE, BOB = node_id(1), node_id(2)
DAY = 86_400.0
ROOMY = Bounds(1 << 40, 1 << 50, 1 << 40, 1 << 50, DAY, 1 << 40)


def draft(number: int = 0, peer_id: Any = ALICE, key: str = "", **more: Any) -> Draft:
    """Make a draft whose message holds a number."""
    more.setdefault("lifetime", DAY)
    return Draft(peer_id, join_message(40001, number.to_bytes(8, "big")), key=key, **more)


def number_in(message: bytes) -> int:
    """Return the number that a message holds."""
    return int.from_bytes(message[2:10], "big")


class Clock:
    """What the clocks of a store say."""

    def __init__(self) -> None:
        self.wall = time.time_ns()
        self.monotonic = 0

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)


class UnrulyStore(OutboxStore):
    """A store that fails when a test says so: before its commit, or so that nobody knows."""

    fails: str | None = None
    fails_after_commit = False

    def run(self, jobs: Sequence[Job], *, is_durable: bool) -> list[Any]:
        if self.fails is not None:
            raise OutboxError(self.fails)
        results = super().run(jobs, is_durable=is_durable)
        if self.fails_after_commit:
            raise OutboxError("the disk went away", is_unknown=True)
        return results


class Opener:
    """Opens a store on a clock, again and again; a test reaches it through `store`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.store: UnrulyStore | None = None

    def outbox(self, bounds: Bounds = ROOMY) -> SqliteOutbox:
        """Make an outbox on the file."""
        return SqliteOutbox(self.path, bounds, open_store=self._open)

    def _open(self, path: Path) -> UnrulyStore:
        self.store = UnrulyStore(path, lambda: self.clock.wall, lambda: self.clock.monotonic)
        return self.store


async def ids_of(
    outbox: SqliteOutbox, *drafts: Draft, caller: str = "shop", credential: str = "c"
) -> list[str]:
    """Enqueue drafts; return the ids of their entries."""
    results = await outbox.enqueue(caller, credential, drafts)
    assert all(isinstance(one, Enqueued) for one in results), results
    return [one.entry_id for one in results if isinstance(one, Enqueued)]


async def state_of(outbox: SqliteOutbox, entry_id: str) -> State | None:
    """Return the state of an entry; None: it is gone."""
    entry = await outbox.find("", entry_id=entry_id)
    return entry and entry.state


async def send_all(
    outbox: SqliteOutbox, peer_id: bytes, state: State = State.SENT, reason: str = ""
) -> list[int]:
    """Take all that waits for a peer, and give it an outcome; return the numbers."""
    taken = await take(outbox, peer_id)
    await outbox.settle([Outcome(one.entry_id, state, reason) for one in taken])
    return [number_in(one.message) for one in taken]


async def take(
    outbox: SqliteOutbox, peer_id: bytes, after: str = "", most: int = 1 << 20, size: int = 1 << 40
) -> list[Waiting]:
    """Have what waits for a peer be SENDING; return it."""
    waiting = await outbox.waiting(peer_id, after, most, size)
    marked = await outbox.attempt([one.entry_id for one in waiting])
    return [one for one in waiting if one.entry_id in marked]
