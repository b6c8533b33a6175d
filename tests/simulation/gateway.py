"""One life of the gateway: from its start to its stop or its violent end. It makes the parts as `app` does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from custommsg_server.core.intake import Intake
from custommsg_server.core.mailbox import Mailbox
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.domain.events import MESSAGE, Arrival
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.port import Position
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.writer import WriterOptions
from custommsg_server.node.lightningd.attach import Attachment, Paths
from custommsg_server.node.lightningd.manifest import PluginOptions
from simulation.faults import KilledError, SimulatedStore
from simulation.ledger import Fate, File
from simulation.machine import Loop, SteppedWriter, Wire
from simulation.node import OURS

if TYPE_CHECKING:
    from simulation.world import World

WANTED: Final = TypeSet([range(32768, 65536)])
SUFFIXES: Final = ("", "-wal")
"""Of the files that an inbox consists of while nobody has it open."""


Saved = tuple[list[bytes], File]
"""The files of an inbox, and what is in them."""


def numbers_of(arrivals: Sequence[Arrival]) -> list[int]:
    """Return the numbers of messages."""
    return [int.from_bytes(one.message[2:6], "big") for one in arrivals if one.kind is MESSAGE]


class WatchedInbox(SqliteInbox):
    """Tells the ledger what was handed to it, and what it says has become of that."""

    life: Life

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[Sequence[Position]]:
        ledger = self.life.world.ledger
        numbers = numbers_of(arrivals)
        for number in numbers:
            if ledger.messages[number].fate is not Fate.SENT:
                self.life.world.broken(f"message {number} is appended a second time")
            ledger.messages[number].fate = Fate.WAITING
        positions = super().append(arrivals)
        positions.add_done_callback(partial(self._became, numbers))
        return positions

    def _became(self, numbers: list[int], positions: asyncio.Future[Sequence[Position]]) -> None:
        if not self.life.is_over:
            is_lost = positions.exception() is not None
            self.life.world.ledger.became(numbers, Fate.LOST if is_lost else Fate.STORED)


class Life:
    """One life of the gateway.

    Args:
        world: it lives in.
        folder: for its files.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.path = folder / "inbox.sqlite3"
        self.loop = Loop(world.clock, world.some)
        self.stores: list[SimulatedStore] = []
        self.saved: list[Saved] = []
        """The files as they may be after a power failure: when they were last synced, and after each commit since."""
        self.power_fails_in: int | None = None
        """Steps until the power fails, once that is known: the files are saved from then on."""
        self.is_over = self.is_killed = False
        self.is_started = self.is_stopping = False
        self.told_of = (0, False)
        """What the gateway knows of lightningd: how often it has started, and whether it is up."""
        self._stop = asyncio.Event()
        world.ledger.started()

    def start(self) -> None:
        """Begin."""
        self.main = self.loop.create_task(self._run())

    async def _run(self) -> None:
        world, plan = self.world, self.world.plan
        options = SqliteOptions(
            recent_size=plan.recent_size,
            writer=WriterOptions(
                max_waiting=plan.max_waiting,
                monotonic_ns=world.clock.monotonic_ns,
                wall_ns=world.clock.time_ns,
            ),
        )
        retention = Retention(plan.max_age, plan.max_size, plan.consumer_share)
        self.inbox = WatchedInbox(self.path, retention, options, lambda path: SimulatedStore(path, self))
        self.inbox.life = self
        assert isinstance(self.inbox._writer, SteppedWriter)
        self.writer = self.inbox._writer
        self.is_started = True  # the writer may take turns
        await self.inbox.start()
        self.intake = Intake(
            self.inbox,
            WANTED,
            lambda: OURS,
            max_waiting=plan.max_full,
            rate=plan.rate,
            clock=world.clock.monotonic,
        )
        self.attachment = Attachment(
            Paths.within(self.folder, None),
            True,
            self.folder / "lightning-rpc",
            self.intake,
            PluginOptions,
            world.node.start_plugin,
        )
        self.memory = MemoryBudget(plan.memory)
        self.mailbox = Mailbox(self.inbox, lambda: self.attachment.is_attached, self.memory)
        self.parts = [asyncio.create_task(work) for work in (self.inbox.run(), self.attachment.run())]
        await self._stop.wait()
        for task in self.parts:
            task.cancel()
        await asyncio.gather(*self.parts, return_exceptions=True)
        self.intake.close()
        await self.inbox.close()

    @property
    def collected(self) -> set[int]:
        """The messages that wait in the intake for the next commit."""
        waiting = self.intake._collected
        return set() if waiting is None else set(numbers_of(waiting.arrivals))

    @property
    def is_serving(self) -> bool:
        """Whether it takes calls."""
        return hasattr(self, "parts") and not (self.is_stopping or self.is_over)

    def stop(self) -> None:
        """Stop as after a signal: what waits is stored."""
        self.is_stopping = self.world.ledger.is_stopping = True
        self._stop.set()

    def learn_of_node(self) -> None:
        """Have the link see what has become of lightningd."""
        node = self.world.node
        if self.told_of != (node.starts, False):
            self.attachment.node_changed(False)
        if node.is_up:
            self.attachment.node_changed(True)
        self.told_of = node.starts, node.is_up

    def end(self) -> None:
        """Let go of everything that the kernel would take back."""
        self.is_over = True
        wires = self._cut()
        self.loop.abandon()
        for wire in wires:
            wire.vanish()
        for store in self.stores:
            store.close()

    # What the store asks.

    def fault(self, where: str, *errors: type[apsw.Error]) -> None:
        """Raise one of these errors, if the world wants it."""
        world = self.world
        if world.is_calm or self.is_over:
            return
        if world.disk_is_full and "commit" in where:
            raise apsw.FullError("the disk is full")
        if world.some.random() < world.plan.fault_rate:
            error = world.some.choice(errors)
            world.note("fault", where, error.__name__)
            raise error("a fault of the simulation")

    def meanwhile(self, where: str, is_locked: bool = False) -> None:
        """Let something happen on other threads."""
        if not self.is_over:
            self.world.interleave(where, is_locked)

    def may_be_killed(self, where: str) -> None:
        """Be killed here, if the world wants it."""
        if self.is_killed:  # meanwhile, on another thread
            raise KilledError
        world = self.world
        if self.is_over or world.is_calm or world.some.random() >= world.plan.kill_rate:
            return
        world.note("killed", where)
        self.is_over = self.is_killed = True
        self._cut()
        self.copy_files()
        raise KilledError

    def _cut(self) -> list[Wire]:
        """Let nothing more come out of it; return its connections."""
        wires = [plugin.wire for plugin in self.world.node.plugins if plugin.wire.loop is self.loop]
        for wire in wires:
            wire.cut()
        return wires

    def committed(self, is_durable: bool) -> None:
        """Save what a power failure would leave."""
        if self.power_fails_in is not None:
            if is_durable:
                self.saved.clear()
            self.saved.append(self.look())

    def let_power_fail(self, steps: int) -> None:
        """Have the power fail soon; what is in the files now was synced by then."""
        self.power_fails_in = steps
        self.saved = [self.look()]

    def look(self) -> Saved:
        """Return the files as they are now."""
        paths = [Path(f"{self.path}{suffix}") for suffix in SUFFIXES]
        files = [path.read_bytes() for path in paths if path.exists()]
        return files, self.world.ledger.file.copy()

    def copy_files(self) -> None:
        """Copy the files for the next life, as they are now."""
        for suffix in SUFFIXES:
            source = Path(f"{self.path}{suffix}")
            if source.exists():
                shutil.copyfile(source, self.world.next_folder / source.name)
