"""Attackers without a credential: open streams, invalid runes, incomplete connections."""

from __future__ import annotations

import argparse
import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from hostile.actor import Job, again_and_again, run

STREAMS = 24
"""Streams on one connection: more than the limit."""


class Strangers:
    """Several kinds of them, at once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._address = job.arguments.address
        self._host, _, port = self._address.rpartition(":")
        self._port = int(port)
        ca = Path(job.arguments.ca)
        self._credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._tls.set_alpn_protocols(["h2"])

    async def run(self) -> None:
        """Run all kinds."""
        size = self._job.arguments.size
        kinds: list[Callable[[], Awaitable[None]]] = [
            *[partial(self._hold_streams, number) for number in range(size // 16)],
            *[self._shake_slowly] * (size // 4),
            *[self._say_nothing] * (size // 4),
            *[self._shake_and_say_nothing] * (size // 8),
            *[self._talk_nonsense] * 4,
            *[self._guess_runes] * 4,
        ]
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(again_and_again(kind, self._job.draw.uniform(0.05, 0.3)))
            await asyncio.sleep(1)
            self._job.ready()

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self._address, self._credentials, (("grpc.use_local_subchannel_pool", 1),)
        )

    async def _hold_streams(self, number: int) -> None:
        async with self._channel() as channel:
            if number % 2:
                reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
                asked = reflection_pb2.ServerReflectionRequest(list_services="")
                calls = [reflection.ServerReflectionInfo() for _ in range(STREAMS)]
                for call in calls:
                    await call.write(asked)
            else:
                health = health_pb2_grpc.HealthStub(channel)
                calls = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(STREAMS)]
            self._job.count["streams without a credential"] += STREAMS
            await asyncio.gather(*(self._until_end(call) for call in calls))

    async def _until_end(self, call: Any) -> None:
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            self._job.count[f"streams ended as {error.code().name}"] += 1

    async def _shake_slowly(self) -> None:
        """Send a valid ClientHello, one byte after the other."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        shaking = self._tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            shaking.do_handshake()
        self._job.count["slow handshakes"] += 1
        _, writer = await asyncio.open_connection(self._host, self._port)
        with closing(writer):
            for byte in outgoing.read():
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(self._job.draw.uniform(0.02, 0.2))

    async def _say_nothing(self) -> None:
        self._job.count["silent connections"] += 1
        reader, writer = await asyncio.open_connection(self._host, self._port)
        with closing(writer):
            await reader.read()

    async def _shake_and_say_nothing(self) -> None:
        self._job.count["connections silent after TLS"] += 1
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, server_hostname="localhost"
        )
        with closing(writer):
            await reader.read()

    async def _talk_nonsense(self) -> None:
        self._job.count["connections with random bytes"] += 1
        secure = self._job.draw.random() < 0.5
        reader, writer = await asyncio.open_connection(
            self._host,
            self._port,
            ssl=self._tls if secure else None,
            server_hostname="localhost" if secure else None,
        )
        with closing(writer):
            writer.write(self._job.draw.randbytes(self._job.draw.randrange(1, 20_000)))
            await reader.read()

    async def _guess_runes(self) -> None:
        draw = self._job.draw
        async with self._channel() as channel:
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            for _ in range(100):
                text = base64.urlsafe_b64encode(draw.randbytes(32) + b"=%d" % draw.randrange(100)).decode()
                try:
                    await stub.GetInfo(pb.GetInfoRequest(), metadata=(("rune", text),), timeout=5)
                    self._job.count["calls let in"] += 1
                except grpc.aio.AioRpcError as error:
                    self._job.count[f"guessed runes: {error.code().name}"] += 1


async def main(job: Job) -> None:
    """Run the strangers."""
    await Strangers(job).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--size", type=int, required=True)
    run(parser, main)
