"""The senders and the real gateway."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

import custommsg
from custommsg import Outbound, Sent
from support import gateways, standin
from support.keys import NOT_A_POINT, node_id


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_the_real_gateway(node: standin.StandIn, kind: str) -> None:
    """Good and bad messages of several peers, among them what only the gateway and only the node refuse."""
    peers = [node_id(number) for number in range(1, 4)]

    async def refuse_some(connection: standin.Connection, request: standin.Request) -> None:
        if request["params"]["msg"].endswith("ff"):
            connection.error(request, -1, "Peer is not connected")
        else:
            await standin.answer(connection, request)

    node.on_send = refuse_some
    messages = []
    for number in range(3000):
        msg = f"9419{number:06x}{'ff' if number % 5 == 0 else '00'}"
        messages.append(Outbound(NOT_A_POINT if number % 7 == 0 else peers[number % 3], msg=msg))
    async with gateways.gateway(node.rpc_file) as address:
        if kind == "aio":
            async with custommsg.aio.connect(address) as client:
                results = [result async for result in client.send_many(messages)]
        else:
            with custommsg.sync.connect(address) as blocking:
                results = await asyncio.to_thread(lambda: list(blocking.send_many(messages)))
    assert sorted(result.index for result in results) == list(range(3000))
    for result in results:
        if result.index % 7 == 0:
            assert isinstance(result.outcome, custommsg.InvalidRequest)
        elif result.index % 5 == 0:
            assert isinstance(result.outcome, custommsg.NodeError | custommsg.PeerNotConnected)
        else:
            assert isinstance(result.outcome, Sent)
    arrived: dict[str, list[str]] = {}
    for request in node.sent():
        arrived.setdefault(json.dumps(request["params"]["node_id"]), []).append(request["params"]["msg"])
    assert all(msgs == sorted(set(msgs)) for msgs in arrived.values()), "each once, in order"
    assert sum(map(len, arrived.values())) == 3000 - len(range(0, 3000, 7))


async def test_a_gateway_that_restarts_loses_nothing(node: standin.StandIn) -> None:
    """What a stopping gateway has not read goes to the next one, in order, and nothing is sent twice."""
    count, results = 3000, []
    path = f"unix:{node.rpc_file.parent}/gateway.sock"
    messages = (Outbound(node_id(), msg=f"9419{number:08x}") for number in range(count))
    async with (
        custommsg.aio.connect(path, timeout=20) as client,
        aclosing(client.send_many(messages)) as stream,
    ):
        async with gateways.gateway(node.rpc_file, listen=(path,)):
            results += [await anext(stream) for _ in range(500)]
        async with gateways.gateway(node.rpc_file, listen=(path,)):
            results += [result async for result in stream]
    assert {type(result.outcome) for result in results} == {Sent}
    assert [int(request["params"]["msg"][4:], 16) for request in node.sent()] == list(range(count))
