"""What is slow costs a bounded amount of memory: a subscriber that does not read, a node that does not answer."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from support import processes, standin
from support.keys import node_id
from support.lightningd_end import LightningdEnd

LIMIT = 64 << 20


class Memory:
    """The memory of a process, now and at its highest, in bytes (proc(5): VmRSS, VmHWM)."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget how high it was while starting
        self.idle = self._read("VmRSS")

    def growth(self) -> int:
        """Return how far it has been above its idle size."""
        return self._read("VmHWM") - self.idle

    def _read(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", self._status.read_text())
        assert found
        return int(found[1]) * 1024


@pytest.mark.heavy
@pytest.mark.timeout(300)
async def test_a_subscriber_that_stops_reading_costs_little_and_stops_nobody(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """100,000 messages of 1 kB arrive; one subscriber never reads, another gets each of them."""
    count = 100_000
    async with standin.running(short_path / "lightning-rpc") as node:
        address = f"unix:{short_path}/gateway.sock"
        arguments = ("serve", "--insecure", "--listen", address, "--rpc-file", str(node.rpc_file))
        arguments += ("--peer-received-bytes-per-s", "0")
        async with processes.server(*arguments) as program, grpc.aio.insecure_channel(address) as channel:
            end = await LightningdEnd.connect(short_path / "custommsg" / "plugin.sock")
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            asleep = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest())
            awake = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest())
            await asleep.initial_metadata()
            await awake.initial_metadata()
            memory = Memory(program.process.pid)
            reading = asyncio.create_task(_numbers(awake, count))
            for start in range(0, count, 100):
                numbers = range(start, start + 100)
                await end.call_hooks([b"\x9c\x41" + n.to_bytes(4, "big") + bytes(1018) for n in numbers])
            assert await reading == list(range(count))
            growth = memory.growth()
            assert await _numbers(asleep, count) == list(range(count)), "it goes on where it stopped"
            end.close()
    with capsys.disabled():
        print(f"\n{count:,} messages of 1 kB past a subscriber that does not read: +{growth / 1e6:.1f} MB")
    assert growth < LIMIT


async def _numbers(call: Any, count: int) -> list[int]:
    numbers: list[int] = []
    while len(numbers) < count:
        response = await call.read()
        assert response is not grpc.aio.EOF
        numbers += [
            int.from_bytes(event.message.payload[:4], "big")
            for event in response.events
            if event.WhichOneof("kind") == "message"
        ]
    return numbers


@pytest.mark.heavy
@pytest.mark.timeout(300)
async def test_a_stream_to_a_node_that_stops_is_held_back(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200,000 messages, the node stops in the middle: memory stays bounded, and when it resumes all get a result."""
    count, size = 200_000, 500
    resumed = asyncio.Event()

    async def stopping(connection: standin.Connection, request: standin.Request) -> None:
        if len(node.requests) > count // 4:
            await resumed.wait()
        await standin.answer(connection, request)

    async with standin.running(short_path / "lightning-rpc") as node:
        node.on_send = stopping
        address = f"unix:{short_path}/gateway.sock"
        arguments = ("serve", "--insecure", "--listen", address, "--rpc-file", str(node.rpc_file))
        arguments += ("--peer-bytes-per-s", "0", "--peer-messages-per-s", "0", "--no-receive")
        arguments += ("--node-reply-timeout", "120")
        async with processes.server(*arguments) as program, grpc.aio.insecure_channel(address) as channel:
            await program.line("node link up")
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            call = stub.SendCustomMsgStream()
            memory = Memory(program.process.pid)
            written = 0

            async def write() -> None:
                nonlocal written
                peer, payload = node_id(), bytes(size - 2)
                for start in range(0, count, 100):
                    batch = [
                        pb.OutboundMsg(number=n, peer_id=peer, msg=b"\x9c\x41" + payload)
                        for n in range(start, start + 100)
                    ]
                    await call.write(pb.SendCustomMsgStreamRequest(messages=batch))
                    written = start + 100
                await call.done_writing()

            writing = asyncio.create_task(write())
            results: dict[int, str] = {}
            held_back = False
            while (response := await call.read()) is not grpc.aio.EOF:
                for result in response.results:
                    assert result.number not in results, "exactly one result for each"
                    results[result.number] = result.WhichOneof("outcome")
                if not held_back and len(node.requests) > count // 4:
                    held_back = True
                    before = -1
                    while before != written:  # the writer comes to a halt
                        before = written
                        await asyncio.sleep(0.5)
                    assert written < count
                    stopped_at, growth = written, memory.growth()
                    resumed.set()
            await writing
    assert len(results) == count
    assert set(results.values()) == {"status"}
    with capsys.disabled():
        print(
            f"\na node that stops in a stream of {count:,}: the writer is held at {stopped_at:,},"
            f" +{growth / 1e6:.1f} MB"
        )
    assert growth < LIMIT


@pytest.mark.heavy
@pytest.mark.timeout(300)
async def test_a_thousand_streams_and_calls_at_a_node_that_stops_stay_within_the_budget(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stream has 1 MB to send, and 8,192 calls have 64 kB each; the node takes nothing, then everything.

    What is counted is within the budget. What the process takes is more: Python and gRPC hold what they have read.
    """
    budget, bound, streams, calls = 64 << 20, 256 << 20, 1000, 8192
    resumed = asyncio.Event()

    async def stopped(connection: standin.Connection, request: standin.Request) -> None:
        await resumed.wait()
        await standin.answer(connection, request)

    async with standin.running(short_path / "lightning-rpc") as node:
        node.on_send = stopped
        address = f"unix:{short_path}/gateway.sock"
        arguments = ("serve", "--insecure", "--listen", address, "--rpc-file", str(node.rpc_file))
        arguments += ("--peer-bytes-per-s", "0", "--peer-messages-per-s", "0", "--no-receive")
        arguments += ("--node-reply-timeout", "250", "--call-timeout", "250", "--log-calls", "none")
        arguments += ("--memory-budget-mb", "67")
        async with processes.server(*arguments) as program, AsyncExitStack() as stack:
            await program.line("node link up")
            options = (("grpc.use_local_subchannel_pool", 1),)
            stubs = [
                custommsg_pb2_grpc.CustomMsgServiceStub(
                    await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
                )
                for _ in range(20)
            ]
            message = pb.OutboundMsg(peer_id=node_id(), msg=b"\x9c\x41" + bytes(65_000))
            memory = Memory(program.process.pid)

            async def stream(stub: Any) -> None:
                call = stub.SendCustomMsgStream()
                for _ in range(8):
                    await call.write(pb.SendCustomMsgStreamRequest(messages=[message] * 2))
                await call.done_writing()
                results = 0
                while (response := await call.read()) is not grpc.aio.EOF:
                    for result in response.results:
                        assert not result.HasField("error") or "memory budget" in result.error.message
                    results += len(response.results)
                assert results == 16

            refused = 0

            async def send(stub: Any) -> None:
                nonlocal refused
                try:
                    await stub.SendCustomMsg(pb.SendCustomMsgRequest(message=message))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
                    refused += 1

            tasks: list[asyncio.Task[None]] = []
            for start in range(0, calls, 64):  # gRPC cancels calls that come faster than they are taken
                some = range(start, start + 64)
                tasks += [asyncio.create_task(send(stubs[10 + number % 10])) for number in some]
                tasks += [
                    asyncio.create_task(stream(stubs[number % 10])) for number in some if number < streams
                ]
                await asyncio.wait(tasks[-64:], timeout=0.05)
            before = -1
            while before != memory.growth() or not refused:
                before = memory.growth()
                await asyncio.sleep(1.0)
            growth = memory.growth()
            resumed.set()
            await asyncio.gather(*tasks)
    with capsys.disabled():
        print(
            f"\n{streams:,} streams of 1 MB and {calls:,} calls of 64 kB, budget {budget >> 20} MB:"
            f" +{growth / 1e6:.0f} MB, {refused:,} calls refused"
        )
    assert growth < bound
