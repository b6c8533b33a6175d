"""The world: everything that happens, one step after another, as a seed says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from custommsg_server.core import intake as core_intake
from custommsg_server.core import limits
from custommsg_server.core.limits import Rate
from custommsg_server.inbox.sqlite import feed, inbox, retention, writer
from custommsg_server.node.lightningd import attach, channel
from simulation import ledger
from simulation.clients import FILTERS, Client
from simulation.gateway import SUFFIXES, WANTED, Life
from simulation.ledger import Fate, Ledger
from simulation.machine import Clock, Loop, SteppedWriter
from simulation.node import PEERS, Lightningd
from support.inboxes import fast_directory

TYPES: Final = (37913, 37913, 37913, 40001, 32768, 0x4C4D, 9)
"""What peers send; the last two are the node's own, and ignored."""


@dataclass(frozen=True)
class Plan:
    """What a run is like, drawn from its seed: each run is extreme in some way, and has some things not at all."""

    steps: int
    peers: int
    flood: float
    """The part of all messages that one peer sends, at least."""
    sizes: tuple[int, ...]
    burst: int
    fault_rate: float
    kill_rate: float
    has_power_failures: bool
    interleaving: float
    max_waiting: int
    max_full: int
    rate: Rate
    recent_size: int
    chunk: int
    commit_size: int
    max_size: int
    max_age: float
    consumer_share: float
    ack_rate: float

    @classmethod
    def draw(cls, some: random.Random) -> Plan:
        """Draw one."""
        return cls(
            steps=some.choice([50, 80, 150]),
            peers=some.choice([1, 2, 3, len(PEERS)]),
            flood=some.choice([0, 0, 0.8]),
            sizes=some.choice([(0,), (0, 10, 200), (0, 900), (2000,)]),
            burst=some.choice([1, 2, 5, 15]),
            fault_rate=some.choice([0, 0, 0.003, 0.02, 0.1]),
            kill_rate=some.choice([0, 0, 0.01, 0.05]),
            has_power_failures=some.random() < 0.3,
            interleaving=some.choice([0, 0.2, 0.6]),
            max_waiting=some.choice([6_000, 6_000, 20_000, 16 << 20]),
            max_full=some.choice([1_500, 20_000, 16 << 20]),
            rate=some.choice([Rate(), Rate(), Rate(20, 0, 0.2), Rate(0, 10_000, 0.5), Rate(5, 5000, 1)]),
            recent_size=some.choice([0, 2_000, 20_000, 8 << 20]),
            chunk=some.choice([1, 4, 20, 500]),
            commit_size=some.choice([1_000, 5_000, 4 << 20]),
            max_size=some.choice([70_000, 85_000, 120_000, 1 << 40]),
            max_age=some.choice([2e6, 2e6, 20.0]),
            consumer_share=some.choice([0.0, 0.5, 0.9]),
            ack_rate=some.choice([0.1, 0.5, 1.0]),
        )


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    seed: int
    problem: str | None
    trace: list[tuple[Any, ...]]

    @property
    def digest(self) -> str:
        """Return a hash of the trace."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()


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
        self.problem: str | None = None
        self.clock = Clock()
        self.ledger = Ledger(self.broken, self.note)
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
        self.trace.append((what, *about))

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
        if not self._is_locked:
            if (
                life.is_started
                and not life.writer.is_over
                and not life.writer.due_in
                and "writer" not in self._running
            ):
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

    def _run_job(self, job: Any) -> None:
        self._running.append(job.pool.name)
        try:
            job.run()
        finally:
            self._running.pop()

    def _deliver(self, plugin: Any) -> None:
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
                steps = self.machine_steps() or ([] if self.is_calm else [self._peers_send])
                if steps and self.problem is None and not self.life.is_over:
                    self._step(steps)
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
        for _ in range(some.randint(1, self.plan.burst)):
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
        from custommsg_server.domain.errors import RelayError
        from support.callers import caller

        client.forget()
        with contextlib.suppress(RelayError):
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

    # The run.

    def _step(self, steps: list[Callable[[], None]]) -> None:
        step = self.some.choice(steps)
        step()
        self._check()

    def run(self) -> None:
        """Take all steps; at the end nothing goes wrong any more, and everything has to come to rest."""
        self.note("plan", self.plan)
        self.begin_life()
        events = self.events()
        weights = [weight for weight, _ in events]
        for _ in range(self.plan.steps):
            machine = self.machine_steps()
            if machine and self.some.random() < 0.8:
                self._step(machine)
            else:
                [(_, event)] = self.some.choices(events, weights)
                self._step([event])
            self._next_life()
            self.node.forget_old()
            if self.problem is not None:
                return
        self._come_to_rest()

    def _next_life(self) -> None:
        """Begin the next life if this one has ended."""
        if self.problem is not None:
            return
        if self.life.power_fails_in is not None:
            self.life.power_fails_in -= 1
        if self.life.is_killed or self.life.power_fails_in == 0:
            self.kill(has_power=self.life.power_fails_in is None)
        elif self.life.main.done():
            self._end_of_life()
            self.begin_life()

    def _end_of_life(self) -> None:
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
        life.is_over = True
        life.copy_files()
        life.end()
        with contextlib.closing(apsw.Connection(str(self.next_folder / life.path.name))) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").get:
                floor = int(str(connection.execute("SELECT value FROM meta WHERE name = 'floor'").get))
                self.ledger.found(ledger.read_rows(connection), floor, ledger.read_consumers(connection))

    def _come_to_rest(self) -> None:
        self.note("calm")
        self.is_calm, self.disk_is_full, self.life.power_fails_in = True, False, None
        if not self.node.is_up:
            self.node.start()
        until, tries = self.clock.monotonic() + 16, 0
        for _ in range(50_000):
            self._next_life()
            if self.problem is not None:
                return
            if steps := self.machine_steps():
                self._step(steps)
            elif self.life.is_serving and tries < 4:
                tries += 1
                for client in self.clients:
                    if client.is_away:
                        client.subscribe(self.life)
                    client.stall(False)
            elif self.clock.monotonic() < until:
                tries = 0
                self.pass_time()
            else:
                break
        else:
            self.broken("it does not come to rest")
            return
        self._check_rest()
        self.life.stop()
        while self.problem is None and not self.life.main.done():
            if not (steps := self.machine_steps()):
                self.broken("the gateway does not stop")
                return
            self._step(steps)
        if self.problem is None:
            self._end_of_life()

    # What has to hold.

    def _check(self) -> None:
        """Check what has to hold after each step."""
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

    def _check_rest(self) -> None:
        """Check what has to hold when nothing moves any more."""
        life, book = self.life, self.ledger
        counts, some = book.counts, life.intake
        told = (some.stored, some.lost, some.refused, some.ignored)
        known = tuple(counts[fate] for fate in (Fate.STORED, Fate.LOST, Fate.REFUSED, Fate.IGNORED))
        if told != known:
            self.broken(f"stored, lost, refused, ignored: {told} are counted, {known} were")
        if book.told != known[1] + known[2]:
            self.broken(f"interruptions tell of {book.told} messages, and {known[1] + known[2]} are missing")
        if some.waiting or life.writer._waiting_size or life.writer._waiting or life.writer._failed:
            self.broken(
                f"{some.waiting} and {life.writer._waiting_size} bytes wait to be stored when all is quiet"
            )
        if waiting := [one for one in book.messages if one.fate is Fate.WAITING and False]:
            self.broken(f"{len(waiting)} messages are forgotten")
        if life.inbox.error is not None:
            self.broken(f"the inbox still fails: {life.inbox.error}")
        if not life.attachment.is_attached or (plugin := self.node.active) is None:
            self.broken("lightningd is not attached")
        elif plugin.unanswered:
            self.broken(f"{len(plugin.unanswered)} hook calls are not answered")
        for client in self.clients:
            if client.reading is None or not client.reading.is_at_end:
                self.broken(f"subscriber {client.number} does not come to the end")
            elif client.reading.owed:
                self.broken(
                    f"subscriber {client.number} was not told of what was evicted: {client.reading.owed}"
                )


def simulate(seed: int, folder: Path | None = None) -> Result:
    """Run the simulation with a seed."""
    with contextlib.ExitStack() as stack:
        home = folder or stack.enter_context(fast_directory())
        with tempfile.TemporaryDirectory(dir=home) as own:
            world = World(seed, Path(own))
            with _installed(world):
                try:
                    world.run()
                finally:
                    world.life.end()
                    for plugin in world.node.plugins:
                        plugin.end()
                    asyncio._set_running_loop(None)
        return Result(seed, world.problem, world.trace)


@contextmanager
def _installed(world: World) -> Iterator[None]:
    """Put the machine under the gateway's code, and listen to its log."""

    def threads(count: int, name: str) -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        return loop.threads(count, name)

    def hear(_: Any, level: str, line: dict[str, Any]) -> Any:
        if world.life.is_over:
            raise structlog.DropEvent
        world.note("log", level, line.get("event"))
        if "exc_info" in line or level == "critical":
            world.broken(f"the log has an unexpected error: {line}")
        raise structlog.DropEvent

    replaced: list[tuple[Any, str, Any]] = [
        (module, "time", world.clock)
        for module in (attach, channel, feed, inbox, core_intake, limits, retention, writer)
        if hasattr(module, "time")
    ]
    replaced += [
        (inbox, "ThreadPoolExecutor", threads),
        (inbox, "Writer", SteppedWriter),
        (writer, "_COMMIT_SIZE", world.plan.commit_size),
        (feed, "CHUNK_EVENTS", world.plan.chunk),
        (feed, "_PASSED_OVER", 10 * world.plan.chunk),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    configured = structlog.get_config()
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        structlog.configure(processors=[hear])
        yield
    finally:
        structlog.configure(**configured)
        for module, name, value in before:
            setattr(module, name, value)
