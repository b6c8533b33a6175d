"""The contract tests run over the embedded node and, where there is one, over real lightningd."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2_grpc
from support import nodes
from support.every_rpc import until_attached
from support.gateways import gateway


@dataclass(frozen=True)
class Rig:
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


@pytest.fixture(params=["sidecar", "plugin"])
def attached_as(request: pytest.FixtureRequest) -> str:
    """Return the way in which lightningd and the gateway come together."""
    way: str = request.param
    return way


@pytest.fixture
async def rig(node_kind: str, short_path: Path) -> AsyncIterator[Rig]:
    """Run a node of that kind with a peer, and a gateway beside it that is ready."""
    async with (
        run_node(node_kind, short_path) as node,
        gateway(node.rpc_file) as address,
        called(node, address) as rig,
    ):
        yield rig


@pytest.fixture
async def receiving_rig(node_kind: str, attached_as: str, short_path: Path) -> AsyncIterator[Rig]:
    """The same, for both ways to attach."""
    async with run_node(node_kind, short_path) as node:
        if attached_as == "sidecar":
            async with gateway(node.rpc_file) as address, called(node, address) as rig:
                yield rig
        else:
            address = await start_as_plugin(node, short_path)
            async with called(node, address) as rig:
                yield rig
            await node.call("plugin", subcommand="stop", plugin="custommsg-plugin")


def run_node(kind: str, directory: Path) -> nodes.RunningNode:
    """Run a node of a kind, with a peer."""
    return nodes.embedded(directory) if kind == "embedded" else nodes.lightningd(directory)


async def start_as_plugin(node: nodes.Node, directory: Path) -> str:
    """Have the node start the gateway as its plugin; return the gateway's address."""
    script = directory / "custommsg-plugin"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -m custommsg_server plugin\n")
    script.chmod(0o755)
    address = f"unix:{directory}/gateway.sock"
    options = {"custommsg-listen": address, "custommsg-insecure": "true"}
    await node.call("plugin", subcommand="start", plugin=str(script), **options)
    return address


@asynccontextmanager
async def called(node: nodes.Node, address: str) -> AsyncIterator[Rig]:
    """Open a channel to a gateway, and wait until it is ready to send and to receive."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        await until_attached(channel)
        yield Rig(node, address, stub)
