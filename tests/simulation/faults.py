"""The store with faults: the real engine on a real file, whose commits and reads fail when the world wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.sqlite.reading import Chunk
from custommsg_server.inbox.sqlite.retention import Evicted, Retention
from custommsg_server.inbox.sqlite.schema import STEPS
from custommsg_server.inbox.sqlite.store import SqliteStore, Stored
from simulation import ledger

if TYPE_CHECKING:
    from simulation.gateway import Life

T = TypeVar("T")

_RANDOM_ID = "lower(hex(randomblob(16)))"


class KilledError(BaseException):
    """The gateway is killed at this point."""


class SimulatedStore(SqliteStore):
    """A store of one life of the gateway.

    Args:
        path: the file.
        life: decides what goes wrong, and learns what was committed.
    """

    def __init__(self, path: Path, life: Life) -> None:
        self._life = life
        self._task = ""
        self._deleted: str | None = None
        self._changes = 0
        """Rows that were changed before this transaction."""
        self._may_delete = False
        life.stores.append(self)
        assert _RANDOM_ID in STEPS[0]
        steps = (STEPS[0].replace(_RANDOM_ID, f"'{life.world.seed:032x}'"), *STEPS[1:])
        super().__init__(path, steps=steps)

    # What the store is asked for: the commit has to know it.

    def append(self, arrivals: Sequence[Arrival]) -> Stored:
        with self._doing("append"):
            return super().append(arrivals)

    def prune(self, *args: Any, **options: Any) -> int:
        with self._doing("prune"):
            plan = self._life.world.plan
            self._may_delete = plan.max_age < 1e6 or (
                self._writer is not None and ledger.read_size(self._writer) > plan.max_size
            )
            return super().prune(*args, **options)

    def evict(self, retention: Retention, limit: int, favored: str = "[]") -> list[Evicted]:
        with self._doing("evict"):
            return super().evict(retention, limit, favored)

    def open_consumer(self, name: str, position: int, now_ns: int) -> int:
        with self._doing("open consumer"):
            return super().open_consumer(name, position, now_ns)

    def advance(self, name: str, position: int, now_ns: int) -> int | None:
        with self._doing("advance"):
            return super().advance(name, position, now_ns)

    def delete_consumer(self, name: str) -> bool:
        with self._doing("delete consumer"):
            self._deleted = name
            return super().delete_consumer(name)

    @contextmanager
    def _doing(self, task: str) -> Iterator[None]:
        self._task = task
        yield

    def read(self, wanted: Filter, after: int, until: int, limit: int, max_size: int) -> Chunk:
        # An engine may give less than it is asked for.
        return super().read(wanted, after, until, min(limit, self._life.world.plan.chunk), max_size)

    # Where faults are.

    def _open_writer(self) -> None:
        self._life.fault("open", apsw.CantOpenError, apsw.IOError, apsw.BusyError)
        super()._open_writer()

    def _check_in_place(self) -> None:
        self._life.fault(f"begin of {self._task}", apsw.BusyError, apsw.IOError)
        super()._check_in_place()
        assert self._writer is not None
        self._changes = self._writer.total_changes()

    def _commit(self, connection: apsw.Connection) -> None:
        life, task = self._life, self._task
        learn = self._look(connection, task)
        life.meanwhile(f"commit of {task}", is_locked=True)
        life.may_be_killed(f"before the commit of {task}")
        life.fault(f"commit of {task}", apsw.FullError, apsw.IOError)
        super()._commit(connection)
        learn()
        life.committed(is_durable=bool(self._is_durable))
        life.may_be_killed(f"after the commit of {task}")
        life.meanwhile(f"end of the commit of {task}", is_locked=True)
        life.fault(f"commit of {task}, which took effect,", apsw.IOError)

    def _look(self, connection: apsw.Connection, task: str) -> Callable[[], None]:
        """Look at what is about to be committed; return what tells the ledger."""
        book = self._life.world.ledger
        if task == "append":
            new = ledger.read_rows(connection, book.latest)
            return lambda: self._note_new(new)
        if task in ("prune", "evict"):
            floor = int(str(connection.execute("SELECT value FROM meta WHERE name = 'floor'").get))
            if floor == book.file.floor and connection.total_changes() == self._changes:
                return lambda: None
            rows = ledger.read_rows(connection)
            if task == "evict":
                return lambda: book.evicted(rows)
            return lambda: book.deleted_oldest(rows, floor, self._may_delete)
        consumers, deleted = ledger.read_consumers(connection), self._deleted
        self._deleted = None
        return lambda: book.moved(consumers, deleted)

    def _note_new(self, new: dict[int, ledger.Row]) -> None:
        for sequence, row in new.items():
            what = int.from_bytes(row.message[2:6], "big") if row.message else f"{row.lost} lost"
            self._life.world.note("committed", sequence, Kind(row.kind).name.lower(), what)
        self._life.world.ledger.committed(new)

    def _read(self, job: Callable[[apsw.Connection], T]) -> T:
        return super()._read(lambda connection: self._read_slowly(connection, job))

    def _read_slowly(self, connection: apsw.Connection, job: Callable[[apsw.Connection], T]) -> T:
        """Read, and let something happen, or go wrong, before each statement."""

        def before(*_: object) -> bool:
            self._life.fault("read", apsw.IOError)
            self._life.meanwhile("read")
            return True

        connection.exec_trace = before
        try:
            return job(connection)
        finally:
            connection.exec_trace = None
