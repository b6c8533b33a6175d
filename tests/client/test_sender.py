"""The senders over a connection: batches, deadlines, ends; and the real gateway."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

import custommsg
from custommsg import Outbound, Sent
from custommsg.v1 import custommsg_pb2 as pb
from support import gateways, standin
from support.client_gateway import PEER, QUEUED, ScriptedGateway
from support.keys import NOT_A_POINT, node_id
from support.send_streams import Streams


async def answer_once(context: Any) -> None:
    """Answer the first request, and then nothing more."""
    request = await context.read()
    results = [pb.SendResult(number=message.number, status=QUEUED) for message in request.messages]
    await context.write(pb.SendCustomMsgStreamResponse(results=results))
    await asyncio.Event().wait()


async def test_callers_at_once_share_a_batch(gateway: ScriptedGateway) -> None:
    """Nobody waits for company; who comes together goes in two halves, so that one is answered meanwhile."""
    gateway.send_stream = streams = Streams()
    async with custommsg.aio.connect(gateway.address) as client, client.sender() as sender:
        await sender.send(PEER, msg="0000")
        await asyncio.gather(*(sender.send(PEER, msg=f"0000{number:08x}") for number in range(200)))
    assert streams.opened == 1
    assert streams.batches == [1, 100, 100]


async def test_threads_at_once_share_a_stream(gateway: ScriptedGateway) -> None:
    """The same for the client without an event loop."""
    gateway.send_stream = streams = Streams()

    def send_all() -> list[Sent]:
        done: list[Sent] = []
        with custommsg.sync.connect(gateway.address) as client, client.sender() as sender:
            threads = [
                threading.Thread(target=lambda: done.append(sender.send(PEER, type=0))) for _ in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return done

    assert len(await asyncio.to_thread(send_all)) == 20
    assert (streams.opened, len(streams.sent)) == (1, 20)


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_gateway_that_does_not_answer(gateway: ScriptedGateway, kind: str) -> None:
    """The timeout ends the wait, and nobody knows what became of the message."""
    gateway.send_stream = answer_once
    with pytest.raises(custommsg.OutcomeUnknown) as caught:
        await send_each(kind, gateway.address, [30, 0.5])
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_gateway_that_is_not_there(kind: str) -> None:
    """The error comes at once: the address may be wrong."""
    with pytest.raises(custommsg.NotSent, match="cannot be reached"):
        await send_each(kind, "127.0.0.1:1", [30])


async def send_each(kind: str, address: str, timeouts: list[float]) -> None:
    """Send a message for each timeout, one after the other, with a sender of either client."""
    if kind == "aio":
        async with custommsg.aio.connect(address) as client, client.sender() as sender:
            for timeout in timeouts:
                await sender.send(PEER, msg="9419", timeout=timeout)
        return

    def send() -> None:
        with custommsg.sync.connect(address) as client, client.sender() as sender:
            for timeout in timeouts:
                sender.send(PEER, msg="9419", timeout=timeout)

    await asyncio.to_thread(send)


async def test_closing_the_client_ends_what_waits(gateway: ScriptedGateway) -> None:
    """With the word that the outcome is unknown; after that the sender takes nothing."""
    called = asyncio.Event()

    async def read(context: Any) -> None:
        await context.read()
        called.set()
        await asyncio.Event().wait()

    gateway.send_stream = read
    async with custommsg.aio.connect(gateway.address) as client:
        sender = client.sender()
        waiting = asyncio.create_task(sender.send(PEER, msg="9419"))
        await called.wait()
    with pytest.raises(custommsg.OutcomeUnknown, match="closed"):
        await waiting
    with pytest.raises(RuntimeError, match="closed"):
        await sender.send(PEER, msg="9419")


async def test_leaving_early_takes_back_what_was_not_written(gateway: ScriptedGateway) -> None:
    """An endless input is left after some results, and ends."""
    gateway.send_stream = Streams()

    async def endless() -> AsyncIterator[Outbound]:
        while True:
            yield Outbound(PEER, 0)
            await asyncio.sleep(0)

    async with (
        custommsg.aio.connect(gateway.address) as client,
        aclosing(client.send_many(endless())) as results,
    ):
        assert [(await anext(results)).outcome.__class__ for _ in range(10)] == [Sent] * 10


async def test_an_input_that_fails_is_told_after_the_results(gateway: ScriptedGateway) -> None:
    """What was taken has its outcome all the same."""
    gateway.send_stream = Streams()

    async def failing() -> AsyncIterator[Outbound]:
        yield Outbound(PEER, 0)
        raise OSError("no more")

    async with custommsg.aio.connect(gateway.address) as client:
        results = client.send_many(failing())
        assert isinstance((await anext(results)).outcome, Sent)
        with pytest.raises(OSError, match="no more"):
            await anext(results)


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
    """What a stopping gateway has not read goes to the next one, in order, and nothing goes twice."""
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
