"""Traces: a span for each call, in the caller's trace."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server import app
from custommsg_server.ops import traces
from custommsg_server.settings import SettingsError
from support.gateways import settings
from support.keys import node_id
from support.standin import StandIn

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
PAYLOAD = b"nobody's business"
REQUEST = pb.SendCustomMsgRequest(
    message=pb.OutboundMsg(peer_id=node_id(), typed_msg=pb.TypedMsg(type=40_001, payload=PAYLOAD))
)


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """Wait for the exporter's threads: in another test, their use of `random` disturbs Hypothesis."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(20)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Keep spans instead of sending them."""
    kept = InMemorySpanExporter()
    monkeypatch.setattr(traces, "OTLPSpanExporter", lambda **_: kept)
    return kept


async def test_a_call_is_a_span_in_the_callers_trace_with_a_child_for_each_stage(
    node: StandIn, exporter: InMemorySpanExporter
) -> None:
    """No span has a payload, a credential or a peer."""
    options = settings(node.rpc_file, receive=False, otel_endpoint="http://127.0.0.1:1")
    async with app.running(options) as gateway:
        await gateway.ready()
        async with grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel:
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            await stub.SendCustomMsg(REQUEST, metadata=(PARENT, ("rune", "a-rune")))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.SendCustomMsg(pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=b"no")))
            stream = stub.SendCustomMsgStream()
            message = pb.OutboundMsg(number=1, peer_id=node_id(), msg_hex="9c4101")
            await stream.write(pb.SendCustomMsgStreamRequest(messages=[message]))
            await stream.done_writing()
            while await stream.read() is not grpc.aio.EOF:
                pass
    spans = exporter.get_finished_spans()
    calls = [span for span in spans if span.name.endswith("/SendCustomMsg")]
    first, failed = calls
    assert first.context is not None
    assert f"{first.context.trace_id:032x}" == TRACE
    assert first.parent is not None
    assert [child.name for child in _children(spans, first)] == ["validate", "node"]
    assert _attributes(first)["rpc.grpc.status_code"] == "OK"
    assert _attributes(failed)["custommsg.reason"] == "INVALID_NODE_ID"
    assert [child.name for child in _children(spans, failed)] == ["validate"]
    [streamed] = [span for span in spans if span.name.endswith("/SendCustomMsgStream")]
    assert _attributes(streamed)["custommsg.messages.SENT"] == 1
    told = "".join(span.to_json() for span in spans)
    assert not [secret for secret in (PAYLOAD.decode(), "a-rune", node_id().hex()) if secret in told]


async def test_a_collector_that_is_away_holds_nothing_up(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway works and stops in time; the last spans are lost."""
    monkeypatch.setattr(traces, "_SHUTDOWN", 0.5)
    options = settings(node.rpc_file, receive=False, otel_endpoint="http://127.0.0.1:1")
    async with asyncio.timeout(10), app.running(options) as gateway:
        await gateway.ready()
        async with grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel:
            await custommsg_pb2_grpc.CustomMsgServiceStub(channel).SendCustomMsg(REQUEST)


async def test_without_the_extra_the_error_says_what_to_install(
    rpc_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For both ways to switch on traces."""
    monkeypatch.setitem(sys.modules, "custommsg_server.ops.traces", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"custommsg-server\[otel\]"):
        async with app.running(settings(rpc_file)):
            pass


def _children(spans: tuple[ReadableSpan, ...], parent: ReadableSpan) -> list[ReadableSpan]:
    assert parent.context is not None
    return [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})
