"""Callers with a valid rune that send as much as possible, and read as little as possible."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from hostile.actor import Job, again_and_again, run
from support.keys import node_id

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub as Stub  # in the .pyi alone

SUBSCRIPTIONS = 40
"""Streams on one connection; none of them is read."""
MANY_TYPES, MANY_RANGES, MOST_RANGES = 1_200_000, 100_000, 1000
NOBODY = node_id(77)
"""A peer that the node does not know."""


class Callers:
    """Several kinds of them, at once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._credentials = grpc.ssl_channel_credentials(Path(job.arguments.ca).read_bytes())
        self._metadata = (("rune", job.arguments.rune),)
        self._peers: list[bytes] = [NOBODY]

    async def run(self) -> None:
        """Run all kinds."""
        kinds = [
            self._huge_filter,
            self._large_filter,
            self._send_batches,
            self._send_batches,
            self._subscribe_and_read_nothing,
            self._subscribe_and_read_nothing,
            self._subscribe_and_leave,
            self._list_everything,
            self._make_consumers,
            self._send_invalid,
        ]
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(again_and_again(partial(self._on_channel, kind), 0.1))
            await asyncio.sleep(1)
            self._job.ready()

    async def _on_channel(self, kind: Callable[[Stub], Awaitable[None]]) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20))
        async with grpc.aio.secure_channel(
            self._job.arguments.address, self._credentials, options
        ) as channel:
            stub: Stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            name = kind.__name__
            try:
                await kind(stub)
            except grpc.aio.AioRpcError as error:
                self._job.count[f"{name.strip('_')}: {error.code().name}"] += 1
            else:
                self._job.count[f"{name.strip('_')}: OK"] += 1

    async def _huge_filter(self, stub: Stub) -> None:
        if self._job.draw.random() < 0.5:
            filter_ = pb.EventFilter(types=[0x9C41] * MANY_TYPES)
        else:
            filter_ = pb.EventFilter(type_ranges=[pb.TypeRange(first=1, last=65535)] * MANY_RANGES)
        call = stub.SubscribeCustomMsgs(
            pb.SubscribeCustomMsgsRequest(filter=filter_), metadata=self._metadata, timeout=20
        )
        await call.read()

    async def _large_filter(self, stub: Stub) -> None:
        """Subscribe with the maximum number of ranges, and read the events for a while."""
        ranges = [pb.TypeRange(first=first, last=first + 1) for first in range(1, 2 * MOST_RANGES, 2)]
        request = pb.SubscribeCustomMsgsRequest(
            filter=pb.EventFilter(type_ranges=ranges, include_peer_events=True), from_beginning=True
        )
        call = stub.SubscribeCustomMsgs(request, metadata=self._metadata, timeout=10)
        while await call.read() is not grpc.aio.EOF:
            self._job.count["responses read"] += 1

    async def _send_batches(self, stub: Stub) -> None:
        """Send the largest requests, to other attackers and to unknown peers, and read no results for a while."""
        listed = await stub.ListPeers(pb.ListPeersRequest(), metadata=self._metadata, timeout=10)
        honest = bytes.fromhex(self._job.arguments.spare)
        peers = [one.peer_id for one in listed.peers if one.peer_id != honest] + [NOBODY]
        call = stub.SendCustomMsgStream(metadata=self._metadata, timeout=30)
        for _ in range(20):
            count, size = self._job.draw.choice(((2048, 10), (2048, 1500), (60, 65_000), (1, 2)))
            peer = self._job.draw.choice(peers)
            message = pb.OutboundMsg(peer_id=peer, msg=b"\x9c\x43" + bytes(size))
            await call.write(pb.SendCustomMsgStreamRequest(messages=[message] * count))
        await call.done_writing()
        while isinstance(answer := await call.read(), pb.SendCustomMsgStreamResponse):
            self._job.count["results"] += len(answer.results)

    async def _subscribe_and_read_nothing(self, stub: Stub) -> None:
        request = pb.SubscribeCustomMsgsRequest(from_beginning=True)
        calls = [stub.SubscribeCustomMsgs(request, metadata=self._metadata) for _ in range(SUBSCRIPTIONS)]
        await asyncio.gather(*(call.initial_metadata() for call in calls), return_exceptions=True)
        await asyncio.sleep(self._job.draw.uniform(5, 20))

    async def _subscribe_and_leave(self, stub: Stub) -> None:
        calls = [
            stub.SubscribeCustomMsgs(
                pb.SubscribeCustomMsgsRequest(from_beginning=True), metadata=self._metadata
            )
            for _ in range(self._job.draw.randrange(1, SUBSCRIPTIONS))
        ]
        await asyncio.sleep(self._job.draw.uniform(0, 0.3))
        for call in calls:
            call.cancel()

    async def _list_everything(self, stub: Stub) -> None:
        token = ""
        for _ in range(50):
            page = await stub.ListEvents(
                pb.ListEventsRequest(page_size=1000, page_token=token), metadata=self._metadata, timeout=10
            )
            self._job.count["events listed"] += len(page.events)
            token = page.next_page_token
            if not token:
                break

    async def _make_consumers(self, stub: Stub) -> None:
        for _ in range(20):
            name = f"greedy-{self._job.draw.randrange(1000)}"
            call = stub.SubscribeCustomMsgs(
                pb.SubscribeCustomMsgsRequest(consumer=name), metadata=self._metadata, timeout=10
            )
            first = await call.read()
            call.cancel()
            if isinstance(first, pb.SubscribeCustomMsgsResponse):
                ack = pb.AckCustomMsgsRequest(consumer=name, position=first.position)
                await stub.AckCustomMsgs(ack, metadata=self._metadata, timeout=10)
            await stub.ListConsumers(pb.ListConsumersRequest(), metadata=self._metadata, timeout=10)

    async def _send_invalid(self, stub: Stub) -> None:
        """Send messages that would crash lightningd, messages of internal types, and messages to unknown peers."""
        for message in (b"", b"\0", bytes(65_536), b"\0\x12ping", b"\x9c\x41" + bytes(65_534), b"\x9c\x41"):
            request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=NOBODY, msg=message))
            try:
                await stub.SendCustomMsg(request, metadata=self._metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                self._job.count[f"invalid sends: {error.code().name}"] += 1


async def main(job: Job) -> None:
    """Run the callers."""
    await Callers(job).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--rune", required=True)
    parser.add_argument(
        "--spare",
        required=True,
        help="A peer to which nothing is sent, since its limits are shared by all callers.",
    )
    run(parser, main)
