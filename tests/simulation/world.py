"""The world: everything that happens, one step after another, as a seed says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import apsw

from custommsg_server.domain.errors import RelayError
from simulation import ledger
from simulation.clients import FILTERS, Client
from simulation.gateway import SUFFIXES, WANTED, Life
from simulation.ledger import Fate, Ledger
from simulation.machine import Clock, Job
from simulation.node import PEERS, Lightningd, Plugin
from simulation.plan import Plan
from support.callers import caller

TYPES: Final = (37913, 37913, 37913, 40001, 32768, 0x4C4D, 9)
"""What peers send; the last two are the node's own, and ignored."""


class World:
    """All that a run consists of.

    Args:
        seed: says what happens.
        folder: for files.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.some = random.Random(seed)
        self.plan = Plan.draw(self.some)
        self.trace: list[tuple[Any, ...]] = []
        """When something happened, in nanoseconds, what, and details."""
        self.problem: str | None = None
        self.clock = Clock()
        self.ledger = Ledger(self.broken)
        self.node = Lightningd(self)
        self.clients: list[Client] = []
        self.is_calm = False
        """Whether nothing goes wrong any more."""
        self.disk_is_full = False
        self._folder = folder
        self._lives = 0
        self._running: list[str] = []
        """Where threads are in the middle of something, the innermost last."""
        self._is_locked = False
        self._new_folder()

    # For everybody in it.

    def note(self, what: str, *about: object) -> None:
        """Add a line to the trace."""
        self.trace.append((self.clock.monotonic_ns(), what, *about))

    def broken(self, text: str) -> None:
        """Take note that something does not hold; the run ends after this step."""
        if self.problem is None:
            self.problem = text
            self.note("BROKEN", text)

    def is_unlucky(self) -> bool:
        """Whether something that may fail does so now."""
        return not self.is_calm and self.some.random() < 0.2

    # Lives.

    def _new_folder(self) -> None:
        self._lives += 1
        self.next_folder = self._folder / str(self._lives)
        self.next_folder.mkdir()

    def begin_life(self) -> None:
        """Start the gateway on what the last one has left."""
        folder = self.next_folder
        self._new_folder()
        self.life = Life(self, folder)
        asyncio._set_running_loop(self.life.loop)
        self.life.start()

    def kill(self, has_power: bool = True) -> None:
        """End the gateway as kill -9 or a power failure does, and start it again."""
        life = self.life
        self.note("kill" if has_power else "power failure")
        if not life.is_killed:
            life.is_over = True
            life.copy_files()
        life.end()
        if not has_power:
            self._lose_power(life)
            self.node.stop()
        self.begin_life()

    def _lose_power(self, life: Life) -> None:
        """Leave what was synced, and some of what was written after it."""
        paths = [self.next_folder / f"{life.path.name}{suffix}" for suffix in SUFFIXES]
        for path in paths:
            path.unlink(missing_ok=True)
        files, file = self.some.choice(life.saved)
        for path, content in zip(paths, files, strict=False):
            path.write_bytes(content)
        self.ledger.lost_power(file)
        for client in self.clients:
            client.lost_power(self.ledger.file.consumers.get(client.consumer or ""))

    # Steps of the machine.

    def machine_steps(self) -> list[Callable[[], None]]:
        """Return the steps that the machine may take now; each kind once, or more often if much of it waits."""
        life = self.life
        steps: list[Callable[[], None]] = []
        if life.loop.is_ready:
            steps += [self._callbacks] * 2
        may_write = life.is_started and not (self._is_locked or life.writer.is_in_turn)
        if may_write and not life.writer.is_over and not life.writer.due_in:
            steps.append(self._turn)
        for job in life.loop.jobs():
            if job.pool.name == "inbox-reader" or not self._running:
                steps.append(lambda job=job: self._run_job(job))
        for plugin in self.node.plugins:
            if plugin.wire.may_deliver:
                steps.append(lambda plugin=plugin: self._deliver(plugin))
            if not plugin.is_over and (plugin.wire.to_node or plugin.wire.is_closing()):
                steps.append(plugin.read)
        if life.is_serving and life.told_of != (self.node.starts, self.node.is_up):
            steps.append(life.learn_of_node)
        return steps

    def _callbacks(self) -> None:
        for _ in range(self.some.choice([1, 1, 3, 10])):
            if self.life.loop.is_ready:
                self.life.loop.run_one()

    def _turn(self) -> None:
        self._running.append("writer")
        try:
            self.life.writer.turn()
        finally:
            self._running.pop()

    def _run_job(self, job: Job) -> None:
        self._running.append(job.pool.name)
        try:
            job.run()
        finally:
            self._running.pop()

    def _deliver(self, plugin: Plugin) -> None:
        # No more at once than may wait to be stored, as it is with the real sizes.
        plugin.deliver(self.some.choice([7, 60, 400, 1000, 1000 if self.plan.max_waiting < 20_000 else 4000]))

    def interleave(self, where: str, is_locked: bool) -> None:
        """Take some steps while a thread is in the middle of something."""
        if len(self._running) > 2 or self.some.random() >= self.plan.interleaving:
            return
        before, self._is_locked = self._is_locked, self._is_locked or is_locked
        self._running.append(where)
        try:
            for _ in range(self.some.randint(1, 6)):
                steps = self.machine_steps()
                if not steps and self.node.active is not None and not self.is_calm:
                    steps = [self._peers_send]
                if steps and self.problem is None and not self.life.is_over:
                    self.step(steps)
        finally:
            self._running.pop()
            self._is_locked = before

    def pass_time(self) -> None:
        """Let time pass until something is due."""
        life = self.life
        due = []
        if (timer := life.loop.next_timer) is not None:
            due.append(timer - self.clock.monotonic())
        if life.is_started and not life.writer.is_over:
            due.append(life.writer.due_in)
        self.clock.go_on(max(0.0, min(due, default=0.1)))
        life.loop.fire()

    # What happens.

    def events(self) -> list[tuple[int, Callable[[], None]]]:
        """Return what may happen now, with weights."""
        return [
            (12, self._peers_send),
            (6, self.pass_time),
            (4, self._time_passes),
            (4, self._client_acts),
            (1, self._peer_comes_or_goes),
            (1, self._node_changes),
            (1, self._gateway_ends),
            (2, self._disk_changes),
            (1, self._clock_jumps),
            (1, self._somebody_connects),
            (1, self._settings_change),
        ]

    def _peers_send(self) -> None:
        some = self.some
        if self.node.active is None and some.random() < 0.7:
            return  # lightningd would drop all of it
        count = some.randint(1, self.plan.burst)
        self.note("peers send", count, "messages, from number", len(self.ledger.messages))
        for _ in range(count):
            message_type = some.choice(TYPES)
            peer_id = PEERS[0 if some.random() < self.plan.flood else some.randrange(self.plan.peers)]
            self.node.send(peer_id, message_type, some.choice(self.plan.sizes), message_type in WANTED)

    def _time_passes(self) -> None:
        self.clock.go_on(self.some.choice([0.0001, 0.01, 0.3]))
        self.life.loop.fire()

    def _client_acts(self) -> None:
        some = self.some
        if len(self.clients) < 6 and some.random() < 0.3:
            number = len(self.clients)
            name = f"consumer-{number}" if some.random() < 0.5 else None
            self.clients.append(Client(self, number, some.choice(FILTERS), name))
        if not self.clients or not self.life.is_serving:
            return
        client = some.choice(self.clients)
        if client.is_away:
            client.subscribe(self.life)
        elif client.is_stalled:
            client.stall(False)
        elif some.random() < 0.5:
            client.stall(True)
        elif client.consumer is not None and some.random() < 0.2:
            self.life.loop.create_task(self._delete(client))
        else:
            client.leave()

    async def _delete(self, client: Client) -> None:
        client.forget()
        with suppress(RelayError):
            await self.life.mailbox.delete_consumer(caller(), client.consumer or "")

    def _peer_comes_or_goes(self) -> None:
        self.node.notify(
            self.some.choice(["connect", "disconnect"]), PEERS[self.some.randrange(self.plan.peers)]
        )

    def _node_changes(self) -> None:
        if self.node.is_up:
            self.note("lightningd dies")
            self.node.stop()
        if self.some.random() < 0.8:
            self.node.start()

    def _gateway_ends(self) -> None:
        some = self.some
        if some.random() < 0.4 or not self.life.is_serving:
            return
        if self.plan.has_power_failures and some.random() < 0.5:
            if self.life.power_fails_in is None:
                self.life.let_power_fail(some.choice([5, 30]))
        elif some.random() < 0.5:
            self.kill()
        else:
            self.note("the gateway stops")
            self.life.stop()

    def _disk_changes(self) -> None:
        if self.plan.fault_rate:
            self.disk_is_full = not self.disk_is_full
            self.note("the disk is full" if self.disk_is_full else "the disk has room")

    def _clock_jumps(self) -> None:
        self.note("the clock jumps")
        self.clock.jumped_ns = self.some.choice([0, 31 * 86_400, -31 * 86_400, 3600]) * 10**9

    def _somebody_connects(self) -> None:
        for path in list(self.life.loop.servers)[:1]:
            script = path.replace("plugin.sock", "custommsg-attach")
            is_copy = self.node.is_up and self.some.random() < 0.4
            token = None if is_copy else self.some.choice([b"0" * 32 + b"\n", b"GET / HTTP/1.1\n", b"x"])
            self.node.connect(script, token)

    def _settings_change(self) -> None:
        if self.life.is_serving:
            self.life.inbox.keep_more_of(self.some.sample(PEERS, 2))

    # How it goes on.

    def step(self, steps: list[Callable[[], None]]) -> None:
        """Take one of these steps, and check what has to hold after each."""
        self.some.choice(steps)()
        self.check()

    def next_life(self) -> None:
        """Begin the next life if this one has ended."""
        if self.problem is not None:
            return
        if self.life.power_fails_in is not None:
            self.life.power_fails_in -= 1
        if self.life.is_killed or self.life.power_fails_in == 0:
            self.kill(has_power=self.life.power_fails_in is None)
        elif self.life.main.done():
            self.end_of_life()
            self.begin_life()

    def end_of_life(self) -> None:
        """Check what a gateway that has stopped has left."""
        life = self.life
        if (error := life.main.exception()) is not None:
            self.broken(f"the gateway ended with {error!r}")
            return
        for _ in range(1000):
            if not life.loop.is_ready:
                break
            life.loop.run_one()
        left = [task for task in life.loop.tasks if not any(task is client.task for client in self.clients)]
        if left or life.loop.jobs():
            self.broken(f"left over when the gateway had stopped: {left} {life.loop.jobs()}")
        memory, is_held = (
            life.memory,
            any(task is client.task for task in life.loop.tasks for client in self.clients),
        )
        if not is_held and (any(memory.used.values()) or memory.free != self.plan.memory):
            self.broken(f"memory is in use when all subscriptions have ended: {memory.used}")
        if any(one.fate is Fate.WAITING for one in self.ledger.messages):
            self.broken("messages are neither stored nor lost when the gateway has stopped")
        life.is_over = True
        life.copy_files()
        life.end()
        with closing(apsw.Connection(str(self.next_folder / life.path.name))) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").get:
                floor = int(str(connection.execute("SELECT value FROM meta WHERE name = 'floor'").get))
                self.ledger.found(ledger.read_rows(connection), floor, ledger.read_consumers(connection))

    # What has to hold.

    def check(self) -> None:
        life = self.life
        for error in life.loop.errors:
            self.broken(f"an exception in the event loop: {error.get('exception')!r} {error.get('message')}")
        if life.is_serving and not life.is_killed:
            if life.parts[0].done() or life.parts[1].done():
                self.broken("a part of the gateway has ended")
            intake, counts = life.intake, self.ledger.counts
            if intake.waiting < 0:
                self.broken(f"{intake.waiting} bytes wait to be stored")
            if (intake.refused, intake.ignored) != (counts[Fate.REFUSED], counts[Fate.IGNORED]):
                self.broken(f"{intake.refused} are counted as refused, {intake.ignored} as ignored; {counts}")
            if intake.stored > counts[Fate.STORED] or intake.lost > counts[Fate.LOST]:
                self.broken(f"{intake.stored} are counted as stored, {intake.lost} as lost; {counts}")
