"""A gateway on an embedded node, with the stubs of the dialects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from custommsg_server import app
from custommsg_server.api.dialects.protos import cln_pb2_grpc, greenlight_pb2_grpc, lnd_pb2_grpc
from custommsg_server.api.status import DETAILS_KEY
from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.gateways import settings

EVEN = {32768}
"""The even types of these tests: nodes disconnect a peer that sends other even types."""


@dataclass(frozen=True)
class Rig:
    """A node and its peer, a gateway on the node, and a stub of each dialect."""

    node: DevNode
    peer: DevNode
    channel: grpc.aio.Channel
    cln: cln_pb2_grpc.NodeAsyncStub
    greenlight: greenlight_pb2_grpc.NodeAsyncStub
    lnd: lnd_pb2_grpc.LightningAsyncStub


@pytest.fixture
async def rig(short_path: Path) -> AsyncIterator[Rig]:
    """Run the rig with the default settings."""
    async with running_rig(short_path) as running:
        yield running


@asynccontextmanager
async def running_rig(directory: Path, **more: Any) -> AsyncIterator[Rig]:
    """Run the rig; `more` are settings of the gateway."""
    async with (
        devnode.run(directory / "node") as node,
        devnode.run(directory / "peer", even_types=EVEN) as peer,
        app.running(settings(node.rpc_file, accept_even_types=map(str, EVEN), **more)) as gateway,
        grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel,
    ):
        await peer.connect(node)
        await gateway.ready()
        yield Rig(
            node,
            peer,
            channel,
            cln_pb2_grpc.NodeStub(channel),  # type: ignore[arg-type]
            greenlight_pb2_grpc.NodeStub(channel),  # type: ignore[arg-type]
            lnd_pb2_grpc.LightningStub(channel),  # type: ignore[arg-type]
        )


async def failure(call: Any) -> tuple[str, str, str]:
    """Await a call that fails; return its code, its reason and its message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = dict(caught.value.trailing_metadata() or ())[DETAILS_KEY]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    # grpc's own helpers read the details only if the two agree.
    assert (status.code, status.message) == (caught.value.code().value[0], caught.value.details())
    return caught.value.code().name, info.reason, caught.value.details() or ""


async def registered(stream: Any) -> Any:
    """Wait until a stream is registered: it gets all messages from now on."""
    async with asyncio.timeout(10):
        assert "custommsg-position" in dict(await stream.initial_metadata())
    return stream


async def read(stream: Any) -> Any:
    """Read one message from a stream."""
    async with asyncio.timeout(10):
        message = await stream.read()
    assert message is not grpc.aio.EOF, "the stream has ended"
    return message
