"""Commando, Core Lightning's own custom messages, beside gateways on two real nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyln.client import LightningRpc

from custommsg_server.api.dialects.protos import cln_pb2, cln_pb2_grpc
from support import nodes
from support.every_rpc import until_attached
from support.gateways import gateway

LARGE = bytes(range(256)) * 200
CALLS = 10
"""Calls of commando, and custom messages, in each direction."""


@pytest.mark.lightningd
@pytest.mark.skipif(
    not nodes.find_lightningd(), reason="no lightningd: make test-lightningd LIGHTNINGD=/path"
)
async def test_commando_and_the_gateway_do_not_disturb_each_other(short_path: Path) -> None:
    """In both directions at once: every call is answered, and subscribers get the custom messages and nothing else."""
    async with (
        nodes.lightningd_process(short_path / "a") as (a_id, a_rpc, _),
        nodes.lightningd_process(short_path / "b") as (b_id, b_rpc, b_address),
        gateway(a_rpc) as a_gateway,
        gateway(b_rpc) as b_gateway,
        grpc.aio.insecure_channel(a_gateway) as a_channel,
        grpc.aio.insecure_channel(b_gateway) as b_channel,
    ):
        await call(a_rpc, "connect", id=f"{b_id.hex()}@{b_address}")
        streams = []
        for channel in (a_channel, b_channel):
            await until_attached(channel)
            stream = cln_pb2_grpc.NodeStub(channel).SubscribeCustomMsg(cln_pb2.StreamCustomMsgRequest())
            await stream.initial_metadata()
            streams.append(stream)
        await asyncio.gather(
            commando(a_rpc, b_rpc, b_id),
            commando(b_rpc, a_rpc, a_id),
            messages(a_channel, b_id),
            messages(b_channel, a_id),
        )
        for stream, sender in zip(streams, (b_id, a_id), strict=True):
            for number in range(CALLS):
                async with asyncio.timeout(20):
                    message = await stream.read()
                assert (message.peer_id, message.payload) == (sender, text(number))


async def call(rpc_file: Path, command: str, **params: Any) -> Any:
    """Make a JSON-RPC call."""
    return await asyncio.to_thread(LightningRpc(str(rpc_file)).call, command, params)


async def commando(asks: Path, answers: Path, peer_id: bytes) -> None:
    """Have one node run commands on the other; `datastore` and its answer need several messages."""
    rune = (await call(answers, "createrune"))["rune"]
    for _ in range(CALLS):
        got = await call(asks, "commando", peer_id=peer_id.hex(), method="getinfo", rune=rune)
        assert got["id"] == peer_id.hex()
        params = {"key": "commando", "hex": LARGE.hex(), "mode": "create-or-replace"}
        got = await call(
            asks, "commando", peer_id=peer_id.hex(), method="datastore", params=params, rune=rune
        )
        assert got["hex"] == LARGE.hex()


async def messages(channel: grpc.aio.Channel, peer_id: bytes) -> None:
    """Send custom messages through a gateway."""
    stub = cln_pb2_grpc.NodeStub(channel)
    for number in range(CALLS):
        await stub.SendCustomMsg(cln_pb2.SendcustommsgRequest(node_id=peer_id, msg=text(number)))


def text(number: int) -> bytes:
    """Return a message."""
    return b"\x94\x19" + number.to_bytes(2, "big")
