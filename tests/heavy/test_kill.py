"""Promise 3: what was received is kept, and a subscriber resumes where it stopped -- whatever dies."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from custommsg import aio
from custommsg_testing import devnode
from custommsg_testing.devnode.plugins import Plugins
from support import processes

KILLS = 20


class Gateway:
    """A gateway as a process, on one address and one directory through all its lives."""

    def __init__(self, rpc_file: Path, address: str) -> None:
        self.address = address
        self._arguments = ("serve", "--insecure", "--listen", address, "--rpc-file", str(rpc_file))
        self._stack = AsyncExitStack()
        self.program: processes.Program | None = None

    async def start(self) -> None:
        """Start it, and wait until lightningd is attached."""
        self.program = await self._stack.enter_async_context(processes.server(*self._arguments))
        await self.program.line("lightningd is attached")

    async def kill(self) -> None:
        """End it with kill -9."""
        assert self.program is not None
        self.program.process.kill()
        await self._stack.aclose()

    async def stop(self) -> None:
        """End it with SIGTERM."""
        assert self.program is not None
        self.program.process.terminate()
        assert await self.program.process.wait() == 0
        await self._stack.aclose()


class Listener:
    """A client that resumes by itself, and all that it got."""

    def __init__(self, client: aio.Client, **wish: Any) -> None:
        self.numbers: list[int] = []
        self.positions: list[str] = []
        self.changed = asyncio.Condition()
        self._subscription = client.subscribe(**wish)

    async def start(self) -> None:
        """Register, and listen from now on."""
        await self._subscription.start()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for message in self._subscription:
            async with self.changed:
                self.numbers.append(int.from_bytes(message.payload, "big"))
                self.positions.append(message.position)
                self.changed.notify_all()

    async def until(self, number: int) -> None:
        """Wait until it got a message with this number."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: number in self.numbers or self._task.done())
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the numbers of the messages whose hook call the gateway has answered."""
    numbers: list[int] = []

    def call_hook(self: Plugins, chain: list[Any], params: bytes) -> None:
        def record(response: Any) -> None:
            if response is not None:
                assert response["result"] == {"result": "continue"}
                numbers.append(int(json.loads(params)["payload"][4:], 16))

        for plugin in chain:
            plugin.request("custommsg", params, record)

    monkeypatch.setattr(Plugins, "_call_hook", call_hook)
    return numbers


@pytest.mark.heavy
@pytest.mark.timeout(300)
async def test_what_the_hook_took_survives_twenty_kills(
    short_path: Path, answered: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 in a stream of messages: what was answered is delivered, in order, once, to a client that resumes."""
    draw = random.Random(20)
    async with devnode.run(short_path / "node") as node, devnode.run(short_path / "peer") as peer:
        await peer.connect(node)
        gateway = Gateway(node.rpc_file, f"unix:{short_path}/gateway.sock")
        await gateway.start()
        async with aio.connect(gateway.address) as client:
            listener = Listener(client, from_beginning=True)
            await listener.start()
            number = 0
            for _ in range(KILLS):
                await active(node)
                burst = draw.randrange(50, 400)
                enough = len(answered) + draw.randrange(burst)
                for _ in range(burst):
                    number += 1
                    await peer.send(node.id, b"\x9c\x41" + number.to_bytes(4, "big"))
                while len(answered) < enough:
                    await asyncio.sleep(0)  # the kill hits somewhere in the middle of the burst
                await gateway.kill()
                await gateway.start()
            await active(node)
            number += 1
            await peer.send(node.id, b"\x9c\x41" + number.to_bytes(4, "big"))
            await listener.until(number)
            kept = [
                int.from_bytes(m.payload, "big")
                async for m in _first(client.subscribe(from_beginning=True), len(listener.numbers))
            ]
            await listener.close()
        await gateway.stop()
    got = listener.numbers
    missing = sorted(set(range(1, number + 1)) - set(got))
    assert got == sorted(set(got)), "in order, none twice"
    assert len(set(listener.positions)) == len(listener.positions)
    assert got == kept, "the client that was there all the time got what one from the beginning gets"
    assert set(answered) <= set(got), "what was answered was committed"
    with capsys.disabled():
        print(
            f"\n{KILLS} kills: {number:,} messages sent, {len(answered):,} hook calls answered,"
            f" {len(got):,} delivered, {len(missing):,} lost unanswered in the hook or sent while no gateway was there"
        )


async def active(node: devnode.DevNode) -> None:
    """Wait until the node calls the hook: it does so only after the plugin has answered `init`."""
    while not any(plugin.active for plugin in node.plugins):
        await asyncio.sleep(0.001)


async def _first(messages: Any, count: int) -> Any:
    async for message in messages:
        yield message
        count -= 1
        if not count:
            return


@pytest.mark.parametrize("first", ["node", "gateway"])
async def test_a_subscriber_goes_on_after_restarts_in_either_order(short_path: Path, first: str) -> None:
    """The script is started again, the subscription resumes; nobody does anything by hand."""
    async with AsyncExitStack() as stack:
        node_stack = await stack.enter_async_context(AsyncExitStack())
        node = await node_stack.enter_async_context(devnode.run(short_path / "node"))
        peer = await stack.enter_async_context(devnode.run(short_path / "peer"))
        await peer.connect(node)
        gateway = Gateway(node.rpc_file, f"unix:{short_path}/gateway.sock")
        await gateway.start()
        client = await stack.enter_async_context(aio.connect(gateway.address))
        listener = Listener(client, from_beginning=True)
        await listener.start()
        await active(node)
        await peer.send(node.id, b"\x9c\x41\x01")
        await listener.until(1)

        if first == "node":
            await node_stack.aclose()
            node = await stack.enter_async_context(devnode.run(short_path / "node"))
            await gateway.stop()
            await gateway.start()
        else:
            await gateway.stop()
            await node_stack.aclose()
            node = await stack.enter_async_context(devnode.run(short_path / "node"))
            await gateway.start()

        await active(node)
        await peer.connect(node)
        await peer.send(node.id, b"\x9c\x41\x02")
        await listener.until(2)
        await listener.close()
        await gateway.stop()
    assert listener.numbers == [1, 2]


async def test_a_node_that_restarts_alone_is_attached_again(short_path: Path) -> None:
    """The gateway stays up; lightningd comes back and runs the script again."""
    async with AsyncExitStack() as stack:
        node_stack = await stack.enter_async_context(AsyncExitStack())
        node = await node_stack.enter_async_context(devnode.run(short_path / "node"))
        peer = await stack.enter_async_context(devnode.run(short_path / "peer"))
        gateway = Gateway(node.rpc_file, f"unix:{short_path}/gateway.sock")
        await gateway.start()
        client = await stack.enter_async_context(aio.connect(gateway.address))
        listener = Listener(client, from_beginning=True)
        await listener.start()
        for number in (1, 2, 3):
            await active(node)
            await peer.connect(node)
            await peer.send(node.id, b"\x9c\x41" + bytes([number]))
            await listener.until(number)
            await node.kill()
            await node_stack.aclose()
            assert gateway.program is not None
            gateway.program.lines.clear()
            node = await node_stack.enter_async_context(devnode.run(short_path / "node"))
            await gateway.program.line("lightningd is attached")
        await listener.close()
        await gateway.stop()
    assert listener.numbers == [1, 2, 3]
