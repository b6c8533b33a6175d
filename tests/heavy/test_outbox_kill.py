"""What the outbox promises holds whatever dies: nothing sent twice, every entry ends once, nothing is forgotten.

The numbers come from the environment: `make outbox-kills KILLS=1000 NODE_KILLS=100 PEERS=50 ENTRIES=100000`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from custommsg import CustomMsgError, OutboxState, aio
from custommsg_testing import devnode
from support import processes

KILLS = int(os.environ.get("OUTBOX_KILLS", "20"))
NODE_KILLS = int(os.environ.get("OUTBOX_NODE_KILLS", "3"))
PEERS = int(os.environ.get("OUTBOX_PEERS", "8"))
ENTRIES = int(os.environ.get("OUTBOX_ENTRIES", "4000"))
SEED = int(os.environ.get("OUTBOX_SEED", "12"))
AT_ONCE = 64
STAYING = 2
"""Every second peer stays; the others come and go."""


class Stage:
    """A node, its peers and a gateway process, and all that the peers got."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.draw = random.Random(SEED)
        self.address = f"unix:{folder}/gateway.sock"
        self.peers: list[devnode.DevNode] = []
        self.got: Counter[int] = Counter()
        self.order: dict[bytes, list[int]] = {}
        self.in_the_air = 0
        """Entries that were being sent at kills of the gateway, as it says at its next start."""
        self.node_stack = AsyncExitStack()
        self.gateway_stack = AsyncExitStack()

    async def start(self) -> None:
        """Start everything."""
        await self.start_node()
        for number in range(PEERS):
            self.peers.append(
                await self.stack.enter_async_context(
                    devnode.run(self.folder / f"peer{number}", on_message=self._received)
                )
            )
        await self.connect_all()
        await self.start_gateway()

    async def start_node(self) -> None:
        """Start the node, on the same directory each time."""
        self.node = await self.node_stack.enter_async_context(devnode.run(self.folder / "node"))

    async def start_gateway(self) -> None:
        """Start the gateway, and see how many entries were being sent when it was killed."""
        arguments = ("serve", "--insecure", "--listen", self.address, "--rpc-file", str(self.node.rpc_file))
        self.program = await self.gateway_stack.enter_async_context(processes.server(*arguments))
        await self.program.line("lightningd is attached")
        for line in self.program.lines:
            if "messages were being sent" in line:
                self.in_the_air += int(line.partition('"messages": ')[2].partition(",")[0].rstrip("}\n "))

    async def kill_gateway(self) -> None:
        """End it with kill -9."""
        self.program.process.kill()
        await self.gateway_stack.aclose()

    async def kill_node(self) -> None:
        """End the node without a word to anybody, and start it again."""
        await self.node.kill()
        with suppress(Exception):
            await self.node_stack.aclose()
        self.node_stack = AsyncExitStack()
        await self.start_node()

    async def connect_all(self) -> None:
        """Connect the peers that are not connected."""
        for peer in self.peers:
            with suppress(Exception):
                await peer.connect(self.node)

    async def come_and_go(self) -> None:
        """Have peers leave and come back, those that stay aside."""
        while True:
            await asyncio.sleep(self.draw.random() * 0.05)
            peer = self.peers[self.draw.randrange(PEERS)]
            with suppress(Exception):
                if self.peers.index(peer) % STAYING and self.draw.random() < 0.5:
                    await peer.disconnect(self.node.id)
                else:
                    await peer.connect(self.node)

    def _received(self, node: devnode.DevNode, received: devnode.Received) -> None:
        number = int.from_bytes(received.payload[:4], "big")
        self.got[number] += 1
        self.order.setdefault(node.id, []).append(number)


async def enqueue(stage: Stage, client: aio.Client, numbers: Any, ids: dict[int, str]) -> None:
    """Enqueue messages with these numbers, one after the other; a key makes it safe to try again and again."""
    for number in numbers:
        peer = stage.peers[number % PEERS]
        while number not in ids:
            try:
                enqueued = await client.enqueue(
                    peer.id,
                    type=40001,
                    payload=number.to_bytes(4, "big"),
                    key=f"n{number}",
                    at_least_once=is_at_least_once(number),
                )
                ids[number] = enqueued.entry_id
            except CustomMsgError:
                await asyncio.sleep(0.02)


def is_at_least_once(number: int) -> bool:
    """Whether a message may come twice."""
    return number // PEERS % 2 == 1


@pytest.mark.heavy
@pytest.mark.timeout(0)
@pytest.mark.parametrize("node_kills", [0, NODE_KILLS], ids=["gateway", "gateway and node"])
async def test_kills_lead_to_nothing_twice_and_nothing_forgotten(
    short_path: Path, node_kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 while entries are enqueued and sent, and peers come and go; the peers count what they get."""
    kills = KILLS if not node_kills else max(node_kills, KILLS // 4)
    async with AsyncExitStack() as stack:
        stage = Stage(short_path, stack)
        await stage.start()
        client = await stack.enter_async_context(aio.connect(stage.address, timeout=5))
        moving = asyncio.create_task(stage.come_and_go())
        ids: dict[int, str] = {}
        enqueuing = asyncio.gather(
            *(enqueue(stage, client, range(first, ENTRIES, AT_ONCE), ids) for first in range(AT_ONCE))
        )
        for kill in range(kills):
            # Some entries are left for the last kill, however fast the machine is.
            while len(ids) < ENTRIES * kill // (kills + 1):
                await asyncio.sleep(0.005)
            await asyncio.sleep(stage.draw.random() * 0.2)
            await stage.kill_gateway()
            if node_kills and kill % (kills // node_kills) == 0:
                await stage.kill_node()
            await stage.start_gateway()
        await enqueuing
        moving.cancel()
        states: dict[str, OutboxState] = {}
        async with asyncio.timeout(600):
            while len(states) < ENTRIES or not all(state.is_final for state in states.values()):
                await stage.connect_all()
                await asyncio.sleep(0.5)
                with suppress(CustomMsgError):
                    states = {entry.id: entry.state async for entry in client.outbox()}
        # A message goes through the node: what the last one overtook has come, too.
        for peer in stage.peers:
            await client.send(peer.id, type=40001, payload=(2**32 - 1).to_bytes(4, "big"))
        async with asyncio.timeout(60):
            while stage.got[2**32 - 1] < PEERS:
                await asyncio.sleep(0.05)
        await stage.gateway_stack.aclose()
        await stage.node_stack.aclose()
    of = {number: states[entry_id] for number, entry_id in ids.items()}
    once = [number for number in range(ENTRIES) if not is_at_least_once(number)]
    twice = [number for number in once if stage.got[number] > 1]
    unknown = [number for number in once if of[number] is OutboxState.UNKNOWN]
    stayed = [number for number in range(ENTRIES) if number % PEERS % STAYING == 0]
    missing = [number for number in stayed if of[number] is OutboxState.SENT and not stage.got[number]]
    with capsys.disabled():
        print(
            f"\n{kills} kills of the gateway, {node_kills} of the node, {PEERS} peers, {ENTRIES:,} entries: "
            f"{dict(Counter(state.name for state in of.values()))}; at most once: {len(twice)} twice, {len(unknown)}"
            f" UNKNOWN of which {sum(stage.got[n] for n in unknown)} arrived; at least once: "
            f"{sum(stage.got[n] > 1 for n in range(ENTRIES) if is_at_least_once(n))} more than once;"
            f" {stage.in_the_air} in the air at kills; {len(missing)} SENT and missing at peers that stayed"
        )
    assert len(ids) == ENTRIES
    assert set(of.values()) <= {OutboxState.SENT, OutboxState.UNKNOWN}
    assert not twice, "at most once"
    assert all(of[number] is OutboxState.SENT for number in range(ENTRIES) if is_at_least_once(number))
    assert all(not stage.got[number] or of[number] is not OutboxState.EXPIRED for number in range(ENTRIES))
    if not node_kills:
        assert len(unknown) <= stage.in_the_air, "each UNKNOWN was in the air at a kill"
        assert not missing, "nothing that was SENT is missing at a peer that stayed"
