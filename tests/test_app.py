"""The gateway as a process: start, health, drain, stop."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api.service import SERVICE
from support import processes, standin
from support.gateways import gateway
from support.keys import node_id
from support.standin import StandIn

REQUEST = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def started(program: processes.Program) -> str:
    """Wait until the gateway listens; return its address."""
    line = json.loads(await program.line("gateway listening"))
    return str(line["addresses"][0])


async def watch_until(stub: health_pb2_grpc.HealthStub, service: str, status: int) -> None:
    """Wait until health says so."""
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
        if answer.status == status:
            return


async def test_readiness_follows_the_node_and_liveness_does_not(rpc_file: Path) -> None:
    """The process serves from the start; the service only while the node answers."""
    async with gateway(rpc_file) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=""))).status == SERVING
        await watch_until(stub, SERVICE, NOT_SERVING)
        async with standin.running(rpc_file):
            await watch_until(stub, SERVICE, SERVING)
        await watch_until(stub, SERVICE, NOT_SERVING)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=""))).status == SERVING


async def test_sigterm_finishes_what_is_in_flight_and_exits_0(node: StandIn) -> None:
    """A health watcher, which never ends by itself, holds nothing up."""
    release = asyncio.Event()

    async def held(connection: standin.Connection, request: standin.Request) -> None:
        await release.wait()
        await standin.answer(connection, request)

    node.on_send = held
    arguments = ("serve", "--insecure", "--listen", "127.0.0.1:0", "--rpc-file", str(node.rpc_file))
    async with processes.server(*arguments) as program:
        async with grpc.aio.insecure_channel(await started(program)) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await watch_until(health, SERVICE, SERVING)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            call = stub.SendCustomMsg(REQUEST)
            await node.wait_sent(1)
            watcher = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watcher.read()).status == SERVING
            program.process.send_signal(signal.SIGTERM)
            assert (await watcher.read()).status == NOT_SERVING
            release.set()
            assert (await call).status == standin.SENT["status"]
            async with asyncio.timeout(10):
                assert await program.process.wait() == 0


async def test_sigterm_with_a_call_that_does_not_end_stops_at_the_drain_time(node: StandIn) -> None:
    """The drain time is a bound: after it the process ends all the same, with 0."""

    async def never(connection: standin.Connection, request: standin.Request) -> None:
        pass

    node.on_send = never
    arguments = (
        "serve",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--rpc-file",
        str(node.rpc_file),
        "--drain-time",
        "0.2",
    )
    async with processes.server(*arguments) as program:
        async with grpc.aio.insecure_channel(await started(program)) as channel:
            await watch_until(health_pb2_grpc.HealthStub(channel), SERVICE, SERVING)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            call = stub.SendCustomMsg(REQUEST)
            await node.wait_sent(1)
            program.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            async with asyncio.timeout(10):
                assert await program.process.wait() == 0
        assert await program.line("still in progress")


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("--listen", "0.0.0.0:9737"), {}, "--insecure"),
        (("--listen", "nowhere"), {}, "host:port"),
        ((), {"CUSTOMMSG_LISTN": "x"}, "CUSTOMMSG_LISTN is not a setting"),
        ((), {"CUSTOMMSG_CALL_TIMEOUT": "0"}, "CUSTOMMSG_CALL_TIMEOUT"),
        (("--config", "/nonexistent.toml"), {}, "/nonexistent.toml"),
    ],
)
async def test_wrong_settings_end_with_2_and_a_word_on_what_to_do(
    arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    """Never a stack trace."""
    async with processes.server("serve", *arguments, env=env) as program:
        assert await program.process.wait() == 2
    printed = "".join(program.lines)
    assert said in printed
    assert "Traceback" not in printed


async def test_a_port_that_is_taken_ends_with_2_and_its_name(node: StandIn) -> None:
    """Never a stack trace, and the address is named."""
    async with gateway(node.rpc_file) as address, processes.server("serve", "--listen", address) as program:
        assert await program.process.wait() == 2
    assert f"Cannot listen on {address}" in "".join(program.lines)
