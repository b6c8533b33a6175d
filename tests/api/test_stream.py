"""SendCustomMsgStream: one result for each message."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api.stream import MAX_MESSAGES, MAX_RESULTS
from support import standin
from support.gateways import gateway
from support.keys import NOT_A_POINT, node_id
from support.standin import StandIn

PEERS = [node_id(number) for number in (1, 2, 3)]
NO_LIMITS = {"peer_messages_per_s": 0, "peer_bytes_per_s": 0, "receive": False}

good = st.sampled_from(PEERS).map(lambda peer: {"peer_id": peer})
bad = st.sampled_from(
    [
        {"peer_id": NOT_A_POINT, "msg": b"\x9c\x41"},
        {"peer_id": PEERS[0], "msg": b""},
        {"peer_id": PEERS[0], "msg": b"\x00\x12"},
        {"peer_id_hex": "zz", "msg": b"\x9c\x41"},
        {},
    ]
)
batches = st.lists(st.lists(good | bad, max_size=30), max_size=8)


def numbered(item: dict[str, Any], number: int) -> pb.OutboundMsg:
    """Make a message, which contains its number if it is valid."""
    if set(item) == {"peer_id"}:
        item = item | {"msg": b"\x9c\x41" + number.to_bytes(4, "big")}
    return pb.OutboundMsg(number=number, **item)


def requests_of(items: list[list[dict[str, Any]]], number: int) -> list[pb.SendCustomMsgStreamRequest]:
    """Number all messages, starting after `number`, and put them into requests."""
    made = []
    for batch in items:
        request = pb.SendCustomMsgStreamRequest()
        for item in batch:
            number += 1
            request.messages.append(numbered(item, number))
        made.append(request)
    return made


def sent_to(node: StandIn, peer: bytes, after: int) -> list[int]:
    """Return the numbers of the messages that the node got for a peer, in order."""
    requests = [request["params"] for request in node.sent() if request["params"]["node_id"] == peer.hex()]
    numbers = [int(params["msg"][4:], 16) for params in requests]
    return [number for number in numbers if number > after]


async def send_all(
    stub: custommsg_pb2_grpc.CustomMsgServiceAsyncStub,
    requests: list[pb.SendCustomMsgStreamRequest],
    cancel_after: int | None,
) -> list[pb.SendResult]:
    """Write the requests, and read results until the end, or until so many were read."""
    call = stub.SendCustomMsgStream()
    results: list[pb.SendResult] = []

    async def write() -> None:
        for request in requests:
            await call.write(request)
        await call.done_writing()

    writing = asyncio.create_task(write())
    while cancel_after is None or len(results) < cancel_after:
        response = await call.read()
        if response is grpc.aio.EOF:
            break
        results += response.results
    else:
        call.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    return results


def test_any_mix_gets_one_result_each_in_order_and_nothing_twice(tmp_path: Path) -> None:
    """Good and bad messages, any batch sizes, cancelled at any point."""
    with asyncio.Runner() as runner:

        async def start() -> Any:
            node = standin.running(tmp_path / "rpc")
            recorded = await node.__aenter__()
            relay = gateway(recorded.rpc_file, node_window=16, **NO_LIMITS)
            channel = grpc.aio.insecure_channel(await relay.__aenter__())
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            while not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up:
                await asyncio.sleep(0)
            return recorded, stub, channel, relay, node

        recorded, stub, channel, relay, node = runner.run(start())
        last = 0

        @given(batches, st.none() | st.integers(0, 40))
        @settings(max_examples=120)
        def run(items: list[list[dict[str, Any]]], cancel_after: int | None) -> None:
            nonlocal last
            before = (
                last  # what an example left behind when it was cancelled may still arrive in the next one
            )
            requests = requests_of(items, before)
            last += sum(map(len, items))
            results = runner.run(send_all(stub, requests, cancel_after))
            messages = {m.number: m for request in requests for m in request.messages}
            numbers = [result.number for result in results]
            assert len(numbers) == len(set(numbers)), "one result for each"
            if cancel_after is None:
                assert set(numbers) == set(messages)
            for result in results:
                is_good = len(messages[result.number].msg) == 6
                assert result.WhichOneof("outcome") == ("status" if is_good else "error")
            for peer in PEERS:
                sent = sent_to(recorded, peer, before)
                assert sent == sorted(set(sent)), "in the order of the stream, nothing twice"
                if cancel_after is None:
                    assert sent == [n for n, m in messages.items() if len(m.msg) == 6 and m.peer_id == peer]

        async def stop() -> None:
            await channel.close()
            await relay.__aexit__(None, None, None)
            await node.__aexit__(None, None, None)

        try:
            run()
        finally:
            runner.run(stop())


@pytest.fixture
async def stub(node: StandIn) -> Any:
    """Return a stub of a gateway with low limits."""
    limits = {"peer_messages_per_s": 100, "peer_burst": 0.1, "peer_bytes_per_s": 0, "receive": False}
    async with gateway(node.rpc_file, **limits) as address, grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        while not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up:
            await asyncio.sleep(0)
        yield stub


async def test_over_a_limit_a_call_is_refused_and_a_stream_is_held_back(stub: Any) -> None:
    """The error of the call has the time to wait; the stream waits and continues."""
    requests = [
        pb.SendCustomMsgStreamRequest(messages=[numbered({"peer_id": PEERS[0]}, number)])
        for number in range(40)
    ]
    results = await send_all(stub, requests, None)
    assert {result.WhichOneof("outcome") for result in results} == {"status"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.gather(
            *(
                stub.SendCustomMsg(
                    pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=PEERS[0], msg_hex="9c41"))
                )
                for _ in range(20)
            )
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_deadline_that_the_limits_would_pass_is_told_for_each_message(
    stub: Any, node: StandIn
) -> None:
    """The result is NOT_SENT, and nothing was sent."""
    batch = [numbered({"peer_id": PEERS[0]}, number) for number in range(200)]
    call = stub.SendCustomMsgStream(timeout=1.0)
    await call.write(pb.SendCustomMsgStreamRequest(messages=batch[:10]))
    first = await call.read()
    assert {result.WhichOneof("outcome") for result in first.results} == {"status"}
    sent = len(node.sent())
    await call.write(pb.SendCustomMsgStreamRequest(messages=batch))
    second = await call.read()
    for result in second.results:
        info = error_details_pb2.ErrorInfo()
        assert result.error.details[0].Unpack(info)
        assert info.reason == "NOT_SENT"
    assert len(node.sent()) == sent
    await call.done_writing()


async def test_a_stream_of_a_gateway_that_stops_gets_its_results_first(node: StandIn) -> None:
    """After all results, the stream ends with GATEWAY_STOPPING."""
    release = asyncio.Event()

    async def held(connection: standin.Connection, request: standin.Request) -> None:
        await release.wait()
        await standin.answer(connection, request)

    node.on_send = held
    running = gateway(node.rpc_file, **NO_LIMITS)
    address = await running.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        while not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up:
            await asyncio.sleep(0)
        call = stub.SendCustomMsgStream()
        await call.write(pb.SendCustomMsgStreamRequest(messages=[numbered({"peer_id": PEERS[0]}, 1)]))
        await node.wait_sent(1)
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0)
        release.set()
        assert (await call.read()).results[0].status == standin.SENT["status"]
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await call.read()
        await stopping


async def test_many_streams_are_held_back_and_none_is_refused(node: StandIn) -> None:
    """If too many requests wait for the node, streams wait, too."""
    async with gateway(node.rpc_file, node_window=8, node_max_waiting=16, **NO_LIMITS) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            while not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up:
                await asyncio.sleep(0)
            requests = requests_of([[{"peer_id": PEERS[0]}] * 20] * 10, 0)
            streams = await asyncio.gather(*(send_all(stub, requests, None) for _ in range(20)))
    for results in streams:
        assert [result.WhichOneof("outcome") for result in results] == ["status"] * 200


async def test_results_that_are_many_come_in_several_responses(node: StandIn) -> None:
    """Failures are larger than messages: all results in one response could exceed the limit of clients."""
    async with gateway(node.rpc_file, **NO_LIMITS) as address, grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        call = stub.SendCustomMsgStream(
            iter([pb.SendCustomMsgStreamRequest(messages=[pb.OutboundMsg()] * MAX_MESSAGES)])
        )
        sizes = [len(response.results) async for response in call]
    assert sum(sizes) == MAX_MESSAGES
    assert max(sizes) <= MAX_RESULTS


async def test_a_request_of_too_many_messages_ends_the_stream_before_any_is_read(node: StandIn) -> None:
    """Parsing two million empty messages would block everything else; earlier messages have their results."""
    async with gateway(node.rpc_file, **NO_LIMITS) as address, grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        call = stub.SendCustomMsgStream()
        await call.write(pb.SendCustomMsgStreamRequest(messages=[pb.OutboundMsg(number=7)]))
        assert [result.number for result in (await call.read()).results] == [7]
        await call.write(pb.SendCustomMsgStreamRequest(messages=[pb.OutboundMsg()] * (MAX_MESSAGES + 1)))
        with pytest.raises(grpc.aio.AioRpcError, match="2,048 are allowed"):
            await call.read()
    assert not node.sent()
