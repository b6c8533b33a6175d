"""The contract tests run over the embedded node and, where there is one, over real lightningd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import nodes
from support.gateways import gateway

from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.rpc.server import SERVICE


@dataclass(frozen=True)
class Stage:
    """A node, its peer, a gateway on it, and a stub that calls the gateway."""

    node: nodes.Node
    address: str
    stub: custommsg_pb2_grpc.CustomMsgServiceAsyncStub


@pytest.fixture(params=["embedded", pytest.param("lightningd", marks=pytest.mark.lightningd)])
def node_kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of node to run over."""
    kind: str = request.param
    if kind == "lightningd" and not nodes.find_lightningd():
        pytest.skip("no lightningd on PATH, and LIGHTNINGD names none: make test-lightningd LIGHTNINGD=/path")
    return kind


@pytest.fixture
async def stage(node_kind: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """Run a node of that kind with a peer, and a gateway on it that is ready."""
    run = nodes.embedded if node_kind == "embedded" else nodes.lightningd
    async with run(tmp_path) as node, gateway(node.rpc_file) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            await ready(channel)
            yield Stage(node, address, custommsg_pb2_grpc.CustomMsgServiceStub(channel))


async def ready(channel: grpc.aio.Channel) -> None:
    """Wait until the gateway reports the node."""
    stub = health_pb2_grpc.HealthStub(channel)
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
