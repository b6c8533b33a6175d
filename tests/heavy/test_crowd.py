"""A crowd at the door: an honest caller hardly notices it."""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from support import nodes, processes
from support.every_rpc import until_serving

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(180)]

IDLE, STREAMS, UNREAD, CALLS = 2000, 500, 20, 1000


@pytest.fixture
async def node(short_path: Path) -> AsyncIterator[nodes.Node]:
    """Run an embedded node with a peer."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with nodes.embedded(short_path) as node:
        yield node


async def test_an_honest_caller_is_served_beside_a_crowd(node: nodes.Node) -> None:
    """2,000 idle connections, 500 streams, and clients that never read: latency within twice its own."""
    # Two callers, since what the crowd does not read counts in the memory budget of its own caller.
    runes = [str((await node.call("createrune", restrictions=[]))["rune"]) for _ in range(2)]
    metadata, honest = ((("rune", rune),) for rune in runes)
    arguments = ("--listen", "127.0.0.1:0", "--rpc-file", str(node.rpc_file), "--log-calls", "none")
    async with processes.server(
        "serve", *arguments, "--caller-calls", "2000", "--max-connections", "3000"
    ) as program:
        address = json.loads(await program.line("gateway listening"))["addresses"][0]
        host, _, port = address.rpartition(":")
        async with grpc.aio.insecure_channel(address) as channel:
            await until_serving(channel)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node.peer.id, msg_hex="9419ab"))

            async def latency() -> float:
                taken = []
                for _ in range(CALLS):
                    began = time.perf_counter()
                    await stub.SendCustomMsg(request, metadata=honest)
                    taken.append(time.perf_counter() - began)
                return statistics.median(taken) * 1000

            await latency()
            alone = await latency()
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(IDLE)]
            crowd = [
                grpc.aio.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),))
                for _ in range(10)
            ]
            streams = [
                custommsg_pb2_grpc.CustomMsgServiceStub(crowd[number % 10]).SubscribeCustomMsgs(
                    pb.SubscribeCustomMsgsRequest(filter=pb.EventFilter(types=[0x9419])), metadata=metadata
                )
                for number in range(STREAMS)
            ]
            await asyncio.gather(*(stream.initial_metadata() for stream in streams))
            for number in range(UNREAD):  # they get the inbox from its beginning, and read none of it
                await node.peer.send(node.id, b"\x94\x19" + bytes(60_000) + bytes([number]))
            unread = [
                stub.SubscribeCustomMsgs(
                    pb.SubscribeCustomMsgsRequest(from_beginning=True), metadata=metadata
                )
                for stub in map(custommsg_pb2_grpc.CustomMsgServiceStub, crowd)
                for _ in range(2)
            ]
            await asyncio.gather(*(stream.initial_metadata() for stream in unread))
            beside = await latency()
            print(f"median latency: {alone:.2f} ms alone, {beside:.2f} ms beside the crowd")
            assert beside < 2 * alone
            for stream in [*streams, *unread]:
                stream.cancel()
            for _, writer in idle:
                writer.close()
            for one in crowd:
                await one.close()
