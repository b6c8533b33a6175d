"""Runs the simulation with a seed, from the first step to rest, and checks what has to hold there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from custommsg_server.core import intake, limits
from custommsg_server.inbox.sqlite import feed, inbox, retention, writer
from custommsg_server.node.lightningd import attach, channel
from simulation.ledger import Fate
from simulation.machine import Loop, SteppedWriter
from simulation.world import World
from support.inboxes import fast_directory


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


def simulate(seed: int) -> Result:
    """Run the simulation with a seed."""
    with fast_directory() as folder:
        world = World(seed, folder)
        with _installed(world):
            try:
                _run(world)
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
        for module in (attach, channel, feed, inbox, intake, limits, retention, writer)
        if hasattr(module, "time")
    ]
    replaced += [
        (inbox, "ThreadPoolExecutor", threads),
        (inbox, "Writer", SteppedWriter),
        (writer, "_COMMIT_SIZE", world.plan.commit_size),
        # In the same proportion as the real ones: what is collected is far less than may wait.
        (intake, "MAX_COLLECTED", world.plan.max_waiting // 16),
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


def _run(world: World) -> None:
    """Take all steps; at the end nothing goes wrong any more, and everything has to come to rest."""
    world.note("plan", world.plan)
    world.begin_life()
    events = world.events()
    weights = [weight for weight, _ in events]
    for _ in range(world.plan.steps):
        machine = world.machine_steps()
        if machine and world.some.random() < 0.8:
            world.step(machine)
        else:
            [(_, event)] = world.some.choices(events, weights)
            world.step([event])
        world.next_life()
        world.node.forget_old()
        if world.problem is not None:
            return
    _come_to_rest(world)


def _come_to_rest(world: World) -> None:
    """Let nothing more go wrong until nothing moves any more; then stop the gateway."""
    world.note("calm")
    world.is_calm, world.disk_is_full, world.life.power_fails_in = True, False, None
    if not world.node.is_up:
        world.node.start()
    until, tries = world.clock.monotonic() + 16, 0
    for _ in range(50_000):
        world.next_life()
        if world.problem is not None:
            return
        if steps := world.machine_steps():
            world.step(steps)
        elif world.life.is_serving and tries < 4:
            tries += 1
            for client in world.clients:
                if client.is_away:
                    client.subscribe(world.life)
                client.stall(False)
        elif world.clock.monotonic() < until:
            tries = 0
            world.pass_time()
        else:
            break
    else:
        world.broken("it does not come to rest")
        return
    _check_rest(world)
    world.life.stop()
    while world.problem is None and not world.life.main.done():
        if not (steps := world.machine_steps()):
            world.broken("the gateway does not stop")
            return
        world.step(steps)
    if world.problem is None:
        world.end_of_life()


def _check_rest(world: World) -> None:
    """Check what has to hold when nothing moves any more."""
    life, book = world.life, world.ledger
    counts, some = book.counts, life.intake
    told = (some.stored, some.lost, some.refused, some.ignored)
    known = tuple(counts[fate] for fate in (Fate.STORED, Fate.LOST, Fate.REFUSED, Fate.IGNORED))
    if told != known:
        world.broken(f"stored, lost, refused, ignored: {told} are counted, {known} were")
    if book.told != known[1] + known[2]:
        world.broken(f"interruptions tell of {book.told} messages, and {known[1] + known[2]} are missing")
    if some.waiting or life.writer._waiting_size or life.writer._waiting or life.writer._failed:
        world.broken(
            f"{some.waiting} and {life.writer._waiting_size} bytes wait to be stored when all is quiet"
        )
    if waiting := [one for one in book.messages if one.fate is Fate.WAITING]:
        world.broken(f"{len(waiting)} messages are neither stored nor lost")
    if life.inbox.error is not None:
        world.broken(f"the inbox still fails: {life.inbox.error}")
    if not life.attachment.is_attached or (plugin := world.node.active) is None:
        world.broken("lightningd is not attached")
    elif plugin.unanswered:
        world.broken(f"{len(plugin.unanswered)} hook calls are not answered")
    for client in world.clients:
        if client.reading is None or not client.reading.is_at_end:
            world.broken(f"subscriber {client.number} does not come to the end")
        elif client.reading.owed:
            world.broken(
                f"subscriber {client.number} was not told of what was evicted: {client.reading.owed}"
            )
