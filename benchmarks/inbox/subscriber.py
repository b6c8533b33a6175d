"""A subscriber that counts, and sees how old each message is."""

from __future__ import annotations

import asyncio
from array import array
from time import perf_counter_ns

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub


class Subscriber:
    """One subscription.

    Args:
        channel: to the gateway.
        request: what to subscribe to.
    """

    def __init__(self, channel: grpc.aio.Channel, request: pb.SubscribeCustomMsgsRequest) -> None:
        self._call = CustomMsgServiceStub(channel).SubscribeCustomMsgs(request)
        self.count = 0
        self.latencies_ms = array("d")

    async def registered(self) -> None:
        """Wait until whatever arrives will be delivered."""
        await self._call.read()  # the first response says where it starts

    async def take(self, count: int) -> None:
        """Read until so many more messages have come, in order.

        Raises:
            AssertionError: one came twice, or too late.
            TimeoutError: one is missing.
        """
        end = self.count + count
        last, position = 0, ""
        async with asyncio.timeout(120):
            while self.count < end:
                response = await self._call.read()
                assert isinstance(response, pb.SubscribeCustomMsgsResponse)
                now = perf_counter_ns()
                for event in response.events:
                    if not event.HasField("message"):
                        continue
                    due = int.from_bytes(event.message.payload[:8], "big")
                    assert due >= last
                    assert event.position != position
                    last, position = due, event.position
                    self.count += 1
                    self.latencies_ms.append((now - due) / 1e6)

    def percentile_ms(self, part: float) -> float:
        """Return a percentile of how old messages were when they came."""
        return sorted(self.latencies_ms)[int(part * len(self.latencies_ms))]

    def close(self) -> None:
        """End it."""
        self._call.cancel()
