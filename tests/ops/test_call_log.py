"""The log line of each call."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from support import processes
from support.keys import node_id
from support.standin import StandIn

PAYLOAD = b"a payload that nobody but the peer may read"
RUNE = "cm9Rc2VjcmV0LXJ1bmUtdGhhdC1ub2JvZHktbWF5LXJlYWQ9"
REQUEST = pb.SendCustomMsgRequest(
    message=pb.OutboundMsg(peer_id=node_id(), typed_msg=pb.TypedMsg(type=40_001, payload=PAYLOAD))
)
BAD = pb.SendCustomMsgRequest(
    message=pb.OutboundMsg(peer_id=node_id(), typed_msg=pb.TypedMsg(type=18, payload=PAYLOAD))
)


async def test_a_call_leaves_a_line_that_says_what_happened(node: StandIn) -> None:
    """Method, code, reason, peer, type, size, duration and caller; for a stream its counts."""
    async with _Gateway(node) as gateway:
        await gateway.stub.SendCustomMsg(REQUEST)
        line = json.loads(await gateway.program.line('"event": "call"'))
        assert line["method"] == "custommsg.v1.CustomMsgService/SendCustomMsg"
        assert (line["code"], line["type"], line["size"]) == ("OK", 40_001, 2 + len(PAYLOAD))
        assert line["peer"] == node_id().hex()
        assert line["caller"].startswith("ipv4:127.0.0.1:")
        assert 0 < line["seconds"] < 10
        assert line["level"] == "info"
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.stub.SendCustomMsg(BAD)
        assert '"code": "INVALID_ARGUMENT"' in await gateway.program.line("INTERNAL_MESSAGE_TYPE")
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.channel.unary_unary("/no.Such/Thing")(b"")
        assert '"code": "UNIMPLEMENTED"' in await gateway.program.line("no.Such/Thing")
        stream = gateway.stub.SendCustomMsgStream()
        message = pb.OutboundMsg(number=1, peer_id=node_id(), msg_hex="9c4101")
        await stream.write(pb.SendCustomMsgStreamRequest(messages=[message] * 3))
        await stream.done_writing()
        while await stream.read() is not grpc.aio.EOF:
            pass
        assert json.loads(await gateway.program.line("SendCustomMsgStream"))["messages"] == {"SENT": 3}


async def test_runes_and_payloads_are_in_no_line_at_any_level(node: StandIn) -> None:
    """Whatever the outcome of the call is."""
    async with _Gateway(node, CUSTOMMSG_LOG_LEVEL="debug") as gateway:
        for request in (REQUEST, BAD):
            try:
                await gateway.stub.SendCustomMsg(request, metadata=(("rune", RUNE),))
            except grpc.aio.AioRpcError:
                continue
        await gateway.program.line("INTERNAL_MESSAGE_TYPE")
        logged = "".join(gateway.program.lines)
    assert PAYLOAD.decode() not in logged
    assert PAYLOAD.hex() not in logged
    assert RUNE not in logged


async def test_sighup_changes_what_it_may_and_names_what_needs_a_restart(
    node: StandIn, tmp_path: Path
) -> None:
    """The file is read again; an invalid one changes nothing, and the gateway continues."""
    config = tmp_path / "custommsg.toml"
    config.write_text('log_calls = "none"\n')
    async with _Gateway(node, CUSTOMMSG_CONFIG=str(config)) as gateway:
        await gateway.stub.SendCustomMsg(REQUEST)
        config.write_text('log_calls = "failures"\nlog_level = "nonsense"\n')
        gateway.program.process.send_signal(signal.SIGHUP)
        assert "log-level" in await gateway.program.line("the old ones stay in use")
        config.write_text('log_calls = "failures"\ndrain_time = 3\n')
        gateway.program.process.send_signal(signal.SIGHUP)
        line = json.loads(await gateway.program.line("settings read again"))
        assert (line["changed"], line["only_at_a_restart"]) == (["log_calls"], ["drain_time"])
        await gateway.stub.SendCustomMsg(REQUEST)
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.stub.SendCustomMsg(BAD)
        await gateway.program.line("INTERNAL_MESSAGE_TYPE")
        assert len([line for line in gateway.program.lines if '"event": "call"' in line]) == 1


class _Gateway:
    """A gateway as a process, with its node up, and a stub of it."""

    def __init__(self, node: StandIn, **env: str) -> None:
        arguments = (
            "serve",
            "--insecure",
            "--listen",
            "127.0.0.1:0",
            "--rpc-file",
            str(node.rpc_file),
            "--no-receive",
        )
        self._running = processes.server(*arguments, env=env)

    async def __aenter__(self) -> _Gateway:
        self.program = await self._running.__aenter__()
        line = json.loads(await self.program.line("gateway listening"))
        self.channel = grpc.aio.insecure_channel(line["addresses"][0])
        self.stub: custommsg_pb2_grpc.CustomMsgServiceAsyncStub
        self.stub = custommsg_pb2_grpc.CustomMsgServiceStub(self.channel)
        await self.program.line("node link up")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self._running.__aexit__(None, None, None)
