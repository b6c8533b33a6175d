"""Runs phases without and with attackers in turns, then prints the report. Exits with 1 if a promise was broken."""

from __future__ import annotations

import asyncio
import json as json_module
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from pyln.client import LightningRpc

from custommsg import aio
from custommsg_testing import devnode
from hostile import report
from hostile.actor import Actor
from hostile.faults import Faults, set_clock
from hostile.honest import Honest
from hostile.node import read_journal
from hostile.programs import FAKETIME, Gateway, Node, small_disk
from hostile.record import ALONE, ATTACK, BESIDE, Record

SETTINGS: Final[dict[str, Any]] = {
    "inbox_max_mb": 10,
    "memory_budget_mb": 64,
    "caller_messages_per_s": 1000,
    "caller_bytes_per_s": 1_000_000,
    "log_calls": "none",
}
"""Settings of the gateway for a small machine. The rest are the defaults."""
DISK_MB: Final = 40
RECOVERS_WITHIN: Final = 60.0
"""Seconds after an attack within which everything has to work again."""


@dataclass(frozen=True)
class Plan:
    """The duration of a run, and its attackers."""

    rounds: int
    alone: float
    """Seconds of each round without attackers, ..."""
    beside: float
    """... with attackers of another gateway on this machine, ..."""
    attack: float
    """... and with attackers of this one."""
    seed: int
    peers: int
    strangers: int
    nice: int
    throttle: float

    def seed_of(self, name: str) -> int:
        """Return the seed of a part, derived from the seed of the run."""
        return random.Random(f"{self.seed} {name}").randrange(1 << 32)


@dataclass
class Side:
    """A gateway and its node, and who attacks them."""

    gateway: Gateway
    node: Node
    address: str
    """The node's, as `id@host:port`."""
    rune: str
    actors: list[Actor]


@dataclass
class Run:
    """A run and its results."""

    plan: Plan
    record: Record
    attacked: Side
    other: Side
    """Attacked by the same, in phases of its own: the honest ones have nothing to do with it."""
    did: Counter[str]
    skipped: list[str]


async def hostile(plan: Plan, folder: Path) -> Run:
    """Run everything."""
    record = Record()
    async with AsyncExitStack() as stack:
        skipped = []
        disk = folder / "disk"
        if not (is_small := stack.enter_context(small_disk(disk, DISK_MB))):
            skipped.append("a full disk (mounting a small file system needs root)")
        clock = folder / "clock" if FAKETIME.exists() else None
        if clock is None:
            skipped.append("a clock that jumps (needs libfaketime: apt-get install libfaketime)")
        else:
            set_clock(clock, "+0")
        peer = await stack.enter_async_context(devnode.run(folder / "peer", strict=False))
        record.peer_id = peer.id
        attacked = await _side(stack, plan, folder, record, disk / "data", clock)
        other = await _side(stack, plan, folder / "other", Record(peer.id), folder / "other" / "data", None)
        gateway = attacked.gateway
        gateway.weigh()
        gateway.idle = gateway.peak
        watching = asyncio.create_task(_watch(gateway, attacked.node))
        stack.callback(watching.cancel)
        await peer.connect(attacked.address, keep=True)
        client = await stack.enter_async_context(
            aio.connect(gateway.address, ca=gateway.certificates, rune=attacked.rune)
        )
        honest = Honest(record, peer, client, attacked.address, attacked.node.rpc_file)
        honest.start()
        stack.push_async_callback(honest.stop)
        run = Run(plan, record, attacked, other, Counter(), skipped)
        draw = random.Random(plan.seed_of("faults"))
        faults = Faults(record, draw, gateway, attacked.node, honest, disk if is_small else None, clock)
        try:
            for number in range(plan.rounds):
                await _round(run, number, honest, faults)
                if watching.done():
                    watching.result()
        finally:
            for actor in (*attacked.actors, *other.actors):
                actor.kill()
        if not await honest.finish(RECOVERS_WITHIN):
            record.broken.append(f"the last message was not received within {RECOVERS_WITHIN:g} s")
        await honest.stop()
    record.called, record.answered = read_journal(attacked.node.journal)
    return run


async def _side(
    stack: AsyncExitStack, plan: Plan, folder: Path, record: Record, data: Path, clock: Path | None
) -> Side:
    """Start a gateway and its node."""
    folder.mkdir(exist_ok=True)
    node = Node(record, folder, folder / "calls", plan.throttle)
    gateway = Gateway(record, folder, data, node.rpc_file, clock, **SETTINGS)
    for part in (node, gateway):
        part.start()
        stack.push_async_callback(part.stop)
    rpc = await _until_up(node.rpc_file)
    address = f"{rpc.getinfo()['id']}@127.0.0.1:{node.port}"
    runes = [(await asyncio.to_thread(rpc.call, "createrune", {}))["rune"] for _ in range(2)]
    await _until(gateway.attached.wait(), "the gateway did not attach at the start")
    door = ("--address", gateway.address, "--ca", gateway.certificates)
    peers = folder / "peers"
    peers.mkdir()
    actors = [
        _actor(plan, folder, "flood", "--node", address, "--folder", peers, "--peers", plan.peers),
        _actor(plan, folder, "strangers", *door, "--size", plan.strangers),
        _actor(plan, folder, "callers", *door, f"--rune={runes[1]}", "--spare", record.peer_id.hex()),
    ]
    return Side(gateway, node, address, runes[0], actors)


async def _round(run: Run, number: int, honest: Honest, faults: Faults) -> None:
    plan, record = run.plan, run.record
    if not await honest.works(RECOVERS_WITHIN):
        record.broken.append(
            f"nothing was received {RECOVERS_WITHIN:g} s after the attack before round {number + 1}"
        )

    def say(text: str) -> None:
        _say(f"round {number + 1} of {plan.rounds}: {text}")

    say(f"alone for {plan.alone:g} s")
    await _phase(record, ALONE, asyncio.sleep(plan.alone))
    say(f"beside an attack for {plan.beside:g} s")
    await _attack(run.other, record, BESIDE, asyncio.sleep(plan.beside))
    say(f"under attack for {plan.attack:g} s")
    run.did.update(await _attack(run.attacked, record, ATTACK, faults.run(plan.attack)))
    honest.check()


async def _attack(side: Side, record: Record, phase: str, work: Any) -> Counter[str]:
    """Let a gateway be attacked during a phase; return what the attackers did."""
    for actor in side.actors:
        await actor.start()
    await _phase(record, phase, work)
    did: Counter[str] = Counter()
    for actor in side.actors:
        did.update({f"{actor.name}: {what}": count for what, count in (await actor.stop()).items()})
    return did


async def _phase(record: Record, name: str, work: Any) -> None:
    begin = time.monotonic()
    await work
    record.phases.append((name, begin, time.monotonic()))


async def _watch(gateway: Gateway, node: Node) -> None:
    while True:
        gateway.weigh()
        gateway.check()
        node.check()
        await asyncio.sleep(0.1)


async def _until(work: Any, otherwise: str) -> None:
    try:
        async with asyncio.timeout(30):
            await work
    except TimeoutError:
        raise RuntimeError(otherwise) from None


async def _until_up(rpc_file: Path) -> LightningRpc:
    rpc = LightningRpc(str(rpc_file))
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                await asyncio.to_thread(rpc.getinfo)
                return rpc
            await asyncio.sleep(0.05)


def _actor(plan: Plan, folder: Path, name: str, *arguments: object) -> Actor:
    more = ("--seed", plan.seed_of(name), "--nice", plan.nice)
    return Actor(name, folder / f"{name}.log", *arguments, *more)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


cli = App(name="hostile", help=__doc__)


@cli.default
def main(
    *,
    minutes: Annotated[float, Parameter(help="How long, about.")] = 4.0,
    quick: Annotated[bool, Parameter(help="One short round, some 30 s with all that belongs to it.")] = False,
    seed: Annotated[int | None, Parameter(help="The seed of an earlier run, to repeat it.")] = None,
    peers: Annotated[int, Parameter(help="Peers that flood the node at once.")] = 6,
    strangers: Annotated[
        int, Parameter(help="The approximate number of connections without a credential.")
    ] = 160,
    nice: Annotated[
        int, Parameter(help="Niceness of the attackers, since in reality they have machines of their own.")
    ] = 10,
    throttle: Annotated[
        float,
        Parameter(help="Bytes a second that the node reads from a peer, as lightningd does; 0: all it can."),
    ] = 1_000_000,
    keep: Annotated[Path | None, Parameter(help="A new folder for the logs.")] = None,
    json: Annotated[bool, Parameter(help="Print the report as JSON.")] = False,
) -> int:
    """Run everything, and print the results of the honest participants."""
    rounds = 1 if quick else max(1, round(minutes))
    alone, beside, attack = (3.0, 6.0, 15.0) if quick else (6.0, 14.0, minutes * 60 / rounds - 20)
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    plan = Plan(rounds, alone, beside, attack, seed, peers, strangers, nice, throttle)
    _say(f"seed {seed}; repeat with: make test-hostile ARGS='--seed {seed}{' --quick' if quick else ''}'")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(
        signal.SIGTERM, signal.getsignal(signal.SIGINT)
    )  # so that all processes that it has started end, too
    with tempfile.TemporaryDirectory(prefix="cm-") as temporary:
        folder = Path(temporary)
        try:
            run = asyncio.run(hostile(plan, folder))
        finally:
            if keep is not None:
                keep.mkdir(parents=True)
                for file in (*folder.glob("*.log"), *folder.glob("calls")):
                    (keep / file.name).write_bytes(file.read_bytes())
    gateway = run.attacked.gateway
    content = report.make(run.record, gateway.idle, gateway.peak, SETTINGS["memory_budget_mb"] * 1_000_000)
    content |= {"seed": seed, "skipped": run.skipped, "attackers": dict(sorted(run.did.items()))}
    print(json_module.dumps(content, indent=1) if json else report.text(content))
    return 0 if content["passed"] else 1


if __name__ == "__main__":
    sys.exit(cli())
