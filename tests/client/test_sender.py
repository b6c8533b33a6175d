"""The senders over a connection: batches, deadlines, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

import custommsg
from custommsg import Outbound, Sent
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import NODE, PEER, QUEUED, ScriptedGateway
from support.send_streams import Streams


async def answer_once(context: Any) -> None:
    """Answer the first request, and then nothing more."""
    request = await context.read()
    results = [pb.SendResult(number=message.number, status=QUEUED) for message in request.messages]
    await context.write(pb.SendCustomMsgStreamResponse(results=results))
    await asyncio.Event().wait()


async def test_callers_at_once_share_a_batch(gateway: ScriptedGateway) -> None:
    """One alone goes at once; many go in two halves, so that one is answered while the other is written."""
    gateway.send_stream = streams = Streams()
    async with custommsg.aio.connect(gateway.address) as client, client.sender() as sender:
        await sender.send(PEER, msg="0000")
        await asyncio.gather(*(sender.send(PEER, msg=f"0000{number:08x}") for number in range(200)))
    assert streams.opened == 1
    assert streams.batches == [1, 100, 100]


async def test_threads_at_once_share_a_stream(gateway: ScriptedGateway) -> None:
    """The same for the blocking client."""
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
    """The timeout ends the wait, and the outcome is unknown."""
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
    """Their outcome is unknown; after that the sender accepts nothing."""
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


async def test_an_input_that_fails_raises_after_the_results(gateway: ScriptedGateway) -> None:
    """The messages that were taken before have their results."""
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
async def test_our_node_can_be_named_for_each_message(gateway: ScriptedGateway, kind: str) -> None:
    """In a call of the sender, and in an input of many; without a name it is the gateway's only node."""
    gateway.send_stream = streams = Streams()
    many = [Outbound(PEER, 0, node_id=NODE.hex()), Outbound(PEER, 0)]
    if kind == "aio":
        async with custommsg.aio.connect(gateway.address) as client, client.sender() as sender:
            await sender.send(PEER, type=0, node_id=NODE)
            results = [result async for result in sender.send_many(many)]
    else:

        def send() -> list[custommsg.Result]:
            with custommsg.sync.connect(gateway.address) as client, client.sender() as sender:
                sender.send(PEER, type=0, node_id=NODE)
                return list(sender.send_many(many))

        results = await asyncio.to_thread(send)
    assert [type(result.outcome) for result in results] == [Sent, Sent]
    assert streams.node_ids == [NODE, NODE, b""]


async def test_an_invalid_node_is_the_outcome_of_its_message(gateway: ScriptedGateway) -> None:
    """Like an invalid peer or message, it stops no other."""
    gateway.send_stream = streams = Streams()
    async with custommsg.aio.connect(gateway.address) as client:
        many = [Outbound(PEER, 0, node_id="02"), Outbound("02", 0), Outbound(PEER, 0)]
        outcomes = {result.index: result.outcome async for result in client.send_many(many)}
    first, second, third = (outcomes[index] for index in range(3))
    assert isinstance(first, custommsg.InvalidRequest)
    assert isinstance(second, custommsg.InvalidRequest)
    assert [first.violations[0].field, second.violations[0].field] == ["node_id", "peer_id"]
    assert isinstance(third, Sent)
    assert len(streams.sent) == 1
