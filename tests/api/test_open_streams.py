"""Streams without a credential, and methods that are not served."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from custommsg_server import app
from custommsg_server.api import open_streams
from support.gateways import gateway, settings
from support.metrics import scrape, value
from support.standin import StandIn


def health(channel: grpc.aio.Channel) -> health_pb2_grpc.HealthAsyncStub:
    """Return a stub of the health service."""
    return health_pb2_grpc.HealthStub(channel)


async def code_of(call: Any) -> grpc.StatusCode:
    """Read a call to its end; return its code."""
    async with asyncio.timeout(10):
        with suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        code: grpc.StatusCode = await call.code()
    return code


async def test_health_watches_and_reflection_of_one_connection_are_bounded(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused; other connections are served; a finished stream makes space."""
    monkeypatch.setattr(open_streams, "MAX_STREAMS_OF_ONE", 3)
    async with gateway(node.rpc_file, receive=False) as address:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with (
            grpc.aio.insecure_channel(address, options) as channel,
            grpc.aio.insecure_channel(address, options) as other,
        ):
            watches = [health(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == 1
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await reflection.read()).list_services_response.service
            refused = health(channel).Watch(health_pb2.HealthCheckRequest())
            assert await code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await health(other).Watch(health_pb2.HealthCheckRequest()).read()).status == 1
            await health(channel).Check(health_pb2.HealthCheckRequest())
            watches[0].cancel()
            again = None
            async with asyncio.timeout(10):
                while again is None or await again.read() is grpc.aio.EOF:
                    again = health(channel).Watch(health_pb2.HealthCheckRequest())


async def test_all_of_them_together_are_bounded(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any number of connections."""
    monkeypatch.setattr(open_streams, "MAX_STREAMS", 1)
    async with (
        gateway(node.rpc_file, receive=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        first = health(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await first.read()).status == 1
        second = health(channel).Watch(health_pb2.HealthCheckRequest())
        assert await code_of(second) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_without_a_credential_ends_after_a_time(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a code with which clients try again."""
    monkeypatch.setattr(open_streams, "MAX_TIME", 0.05)
    async with (
        gateway(node.rpc_file, receive=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        watch = health(channel).Watch(health_pb2.HealthCheckRequest())
        assert await code_of(watch) is grpc.StatusCode.UNAVAILABLE
        idle = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        assert await code_of(idle) is grpc.StatusCode.UNAVAILABLE


async def test_connections_are_bounded(node: StandIn) -> None:
    """One more is closed unanswered, those that there are go on, and one that ends makes room."""
    async with app.running(settings(node.rpc_file, receive=False, max_connections=2)) as running:
        address = str(running.addresses[0])

        async def answers(channel: grpc.aio.Channel, seconds: float) -> bool:
            with suppress(grpc.aio.AioRpcError):
                await health(channel).Check(health_pb2.HealthCheckRequest(), timeout=seconds)
                return True
            return False

        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(address, options) as first:
            async with grpc.aio.insecure_channel(address, options) as second:
                assert await answers(first, 10)
                assert await answers(second, 10)
                async with grpc.aio.insecure_channel(address, options) as third:
                    assert not await answers(third, 0.5)
                    assert await answers(first, 10)
            async with asyncio.timeout(10), grpc.aio.insecure_channel(address, options) as fourth:
                while not await answers(fourth, 1):
                    pass


async def test_a_method_that_is_not_served_is_named_and_counted(node: StandIn) -> None:
    """The error names it and the page with the methods that are served; its name is not a label of metrics."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False, insecure=False)
    async with app.running(options) as running:
        async with grpc.aio.insecure_channel(str(running.addresses[0])) as channel:
            for method in ("/lnrpc.Lightning/WalletBalance", "/no.Such/Thing"):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await channel.unary_unary(method)(b"")
                assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
                assert method[1:] in str(failed.value.details())
                assert "docs/dialects.md" in str(failed.value.details())
        metrics = await scrape(str(running.metrics))
    assert value(metrics, "custommsg_calls_total", method="(not served)", code="UNIMPLEMENTED") == 2
