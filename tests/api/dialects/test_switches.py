"""A setting selects the dialects; reflection and health checks know only these."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from custommsg_server.api.dialects import DIALECTS, Dialect
from support import standin
from support.gateways import gateway

from .conftest import running_rig

SERVICES: dict[Dialect, set[str]] = {
    "cln": {"cln.Node"},
    "greenlight": {"greenlight.Node"},
    "lnd": {"lnrpc.Lightning", "lnrpc.State", "verrpc.Versioner"},
}
ALL = set[str]().union(*SERVICES.values())


def reflected(address: str) -> set[str]:
    """Return the services that reflection lists."""
    with grpc.insecure_channel(address) as channel:
        return set(ProtoReflectionDescriptorDatabase(channel).get_services())


@pytest.mark.parametrize("served", [(), *((name,) for name in DIALECTS), DIALECTS])
async def test_only_the_dialects_of_the_setting_are_served(
    node: standin.StandIn, served: tuple[Dialect, ...]
) -> None:
    """The others are unknown to callers, reflection and health checks."""
    async with gateway(node.rpc_file, dialects=served) as address:
        expected = set[str]().union(*(SERVICES[name] for name in served))
        assert await asyncio.to_thread(reflected, address) & ALL == expected
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ALL:
                check = health.Check(health_pb2.HealthCheckRequest(service=service))
                if service in expected:
                    await check
                    continue
                with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                    await check


async def test_a_dialect_is_healthy_while_the_node_answers(short_path: Path) -> None:
    """As our own contract is."""
    async with running_rig(short_path) as rig:
        health = health_pb2_grpc.HealthStub(rig.channel)
        for service in ALL:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
