"""The metrics: their values, and the number of their labels."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server import app
from custommsg_server.api.open_streams import MAX_STREAMS_OF_ONE
from custommsg_server.domain.address import ListenError
from support import standin
from support.gateways import settings
from support.keys import node_id
from support.metrics import scrape, value
from support.standin import StandIn

SEND = "custommsg.v1.CustomMsgService/SendCustomMsg"
STREAM = "custommsg.v1.CustomMsgService/SendCustomMsgStream"
REQUEST = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))


async def test_each_call_counts_with_its_method_its_code_and_its_reason(node: StandIn) -> None:
    """The message is counted with its outcome."""

    async def refuse(connection: standin.Connection, request: standin.Request) -> None:
        connection.error(request, -32600, "Peer is not connected")

    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False)
    async with app.running(options) as gateway, Stub(gateway) as stub:
        await stub.SendCustomMsg(REQUEST)
        node.on_send = refuse
        for request in (
            REQUEST,
            pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=b"no", msg_hex="9c4101")),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.SendCustomMsg(request)
        metrics = await scrape(str(gateway.metrics))
    calls = "custommsg_calls_total"
    assert value(metrics, calls, method=SEND, code="OK") == 1
    assert value(metrics, calls, method=SEND, code="FAILED_PRECONDITION", reason="PEER_NOT_CONNECTED") == 1
    assert value(metrics, calls, method=SEND, code="INVALID_ARGUMENT", reason="INVALID_NODE_ID") == 1
    assert value(metrics, "custommsg_call_seconds_count", method=SEND) == 3
    sent = "custommsg_messages_sent_total"
    assert value(metrics, sent, outcome="SENT") == 1
    assert value(metrics, sent, outcome="PEER_NOT_CONNECTED") == 1
    assert value(metrics, sent, outcome="INVALID_NODE_ID") == 1


async def test_a_streams_messages_are_counted_while_it_runs(node: StandIn) -> None:
    """Also refused messages; the stream is in flight."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False)
    async with app.running(options) as gateway, Stub(gateway) as stub:
        stream = stub.SendCustomMsgStream()
        good = pb.OutboundMsg(number=1, peer_id=node_id(), msg_hex="9c4101")
        bad = pb.OutboundMsg(number=2, peer_id=node_id(), msg_hex="00")
        await stream.write(pb.SendCustomMsgStreamRequest(messages=[good, bad, good]))
        await stream.read()
        metrics = await scrape(str(gateway.metrics))
        assert value(metrics, "custommsg_calls_in_flight", method=STREAM) == 1
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert value(metrics, "custommsg_messages_sent_total", outcome="SENT") == 2
    assert value(metrics, "custommsg_messages_sent_total", outcome="INVALID_MESSAGE") == 1


async def test_the_state_of_the_node_and_of_the_inbox_is_there(node: StandIn) -> None:
    """Read at each scrape."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False)
    async with app.running(options) as gateway, Stub(gateway):
        metrics = await scrape(str(gateway.metrics))
    assert value(metrics, "custommsg_node_up") == 1
    assert value(metrics, "custommsg_node_links_total") == 1
    assert value(metrics, "custommsg_inbox_up") == 1
    assert value(metrics, "custommsg_attached") == 0
    assert value(metrics, "custommsg_inbox_disk_free_bytes") > 0
    assert value(metrics, "custommsg_info", node_version="v26.06.6", network="regtest") == 1


async def test_a_limit_that_is_hit_says_which_it_was(node: StandIn) -> None:
    """So that an alert can tell a noisy caller from a slow node."""
    options = settings(
        node.rpc_file, metrics_listen="127.0.0.1:0", receive=False, peer_messages_per_s=0.01, peer_burst=0.0
    )
    async with app.running(options) as gateway, Stub(gateway) as stub:
        await stub.SendCustomMsg(REQUEST)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.SendCustomMsg(REQUEST)
        metrics = await scrape(str(gateway.metrics))
    assert value(metrics, "custommsg_limits_hit_total", limit="peer_rate") == 1


async def test_what_callers_hold_is_there_by_what_holds_it(node: StandIn) -> None:
    """While the node is slow; when the call has ended, it is 0."""
    resumed = asyncio.Event()

    async def wait(connection: standin.Connection, request: standin.Request) -> None:
        await resumed.wait()
        await standin.answer(connection, request)

    node.on_send = wait
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False, memory_budget_mb=16)
    async with app.running(options) as gateway, Stub(gateway) as stub:
        stream = stub.SendCustomMsgStream()
        message = pb.OutboundMsg(peer_id=node_id(), msg=b"\x9c\x41" + bytes(60_000))
        await stream.write(pb.SendCustomMsgStreamRequest(messages=[message]))
        call = stub.SendCustomMsg(pb.SendCustomMsgRequest(message=message))
        metrics = await scrape(str(gateway.metrics))
        while not all(
            value(metrics, "custommsg_memory_bytes", held_by=held_by) for held_by in ("streams", "requests")
        ):
            metrics = await scrape(str(gateway.metrics))
        for held_by in ("streams", "requests"):
            assert 180_000 < value(metrics, "custommsg_memory_bytes", held_by=held_by) < 200_000
        assert 15_600_000 < value(metrics, "custommsg_memory_free_bytes") < 15_640_000
        resumed.set()
        await stream.read()
        await call
        metrics = await scrape(str(gateway.metrics))
        assert value(metrics, "custommsg_memory_free_bytes") == 16_000_000
        stream.cancel()


async def test_streams_without_a_credential_are_counted(node: StandIn) -> None:
    """Open streams, and those refused by the limit of one connection."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False, insecure=False)
    async with (
        app.running(options) as gateway,
        grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_STREAMS_OF_ONE)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Watch(health_pb2.HealthCheckRequest()).read()
        metrics = await scrape(str(gateway.metrics))
        for watch in watches:
            watch.cancel()
    assert value(metrics, "custommsg_open_streams") == MAX_STREAMS_OF_ONE
    assert value(metrics, "custommsg_open_streams_refused_total") == 1


async def test_two_gateways_in_one_process_count_apart(node: StandIn) -> None:
    """There is no global registry; a port in use is an error that says what to set."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False)
    async with app.running(options) as one, Stub(one) as stub:
        await stub.SendCustomMsg(REQUEST)
        more = {"receive": False, "data_dir": node.rpc_file.parent / "other"}
        async with app.running(settings(node.rpc_file, metrics_listen="127.0.0.1:0", **more)) as other:
            assert value(await scrape(str(other.metrics)), "custommsg_calls_total") == 0
        assert value(await scrape(str(one.metrics)), "custommsg_calls_total", method=SEND) == 1
        with pytest.raises(ListenError, match="metrics_listen"):
            async with app.running(settings(node.rpc_file, metrics_listen=str(one.metrics), **more)):
                pass


async def test_whatever_callers_call_there_are_few_series_and_no_peer_in_them(node: StandIn) -> None:
    """Callers choose the names of consumers and of unknown methods, so these must not add series."""
    options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", receive=False)
    async with app.running(options) as gateway, Stub(gateway) as stub:
        await stub.SendCustomMsg(REQUEST)
        for number in range(130):
            call = stub.SubscribeCustomMsgs(pb.SubscribeCustomMsgsRequest(consumer=f"c{number}"))
            await call.initial_metadata()
            call.cancel()
        async with grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/custommsg.v1.CustomMsgService/Nonesuch")(b"")
        metrics = await scrape(str(gateway.metrics))
    lags = metrics["custommsg_consumer_lag_events"].samples
    assert len(lags) == 101
    assert any(one.labels["consumer"] == "(others)" for one in lags)
    assert value(metrics, "custommsg_consumers") == 130
    labels = [text for metric in metrics.values() for one in metric.samples for text in one.labels.values()]
    assert not [text for text in labels if node_id().hex() in text or "Nonesuch" in text]


class Stub:
    """A stub of a gateway whose node is up."""

    def __init__(self, gateway: app.Gateway) -> None:
        self._gateway = gateway
        self._channel = grpc.aio.insecure_channel(str(gateway.addresses[0]))

    async def __aenter__(self) -> custommsg_pb2_grpc.CustomMsgServiceAsyncStub:
        await self._gateway.ready()
        return custommsg_pb2_grpc.CustomMsgServiceStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
