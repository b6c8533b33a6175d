"""The RPC socket: its framing, its errors, and that clients written for lightningd work with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyln.client import LightningRpc

from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.devnode_wire import RawRpc, raw_rpc


def request(method: str, params: object, request_id: object = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


async def test_requests_need_no_separator_and_replies_end_with_two_line_feeds(rpc: RawRpc) -> None:
    """The framing as recorded."""
    rpc.writer.write(request("listpeers", {}, 1) + request("listpeers", [], 2))
    assert await rpc.reply_bytes() == b'{"jsonrpc":"2.0","id":1,"result":{"peers":[]}}\n\n'
    assert await rpc.reply_bytes() == b'{"jsonrpc":"2.0","id":2,"result":{"peers":[]}}\n\n'


async def test_a_request_may_come_in_any_pieces(rpc: RawRpc) -> None:
    """Also within a character."""
    for byte in request("listpeers", {}, "é☃"):
        rpc.writer.write(bytes([byte]))
        await rpc.writer.drain()
    assert (await rpc.reply())["id"] == "é☃"


@pytest.mark.parametrize("request_id", ["x", "cln:a#1/b", 7, -1, 2**70, "", None])
async def test_the_id_comes_back_unchanged(rpc: RawRpc, request_id: object) -> None:
    """A string, a number, or whatever primitive."""
    assert (await rpc.ask(request("listpeers", {}, request_id)))["id"] == request_id


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        ({"jsonrpc": "2.0", "method": "getinfo", "params": {}}, -32600, "No id"),
        (
            {"jsonrpc": "2.0", "id": {}, "method": "getinfo", "params": {}},
            -32600,
            "Expected string/primitive for id",
        ),
        (
            {"jsonrpc": "1.0", "id": 1, "method": "getinfo", "params": {}},
            -32600,
            'jsonrpc: "2.0" must be specified in the request',
        ),
        ({"jsonrpc": "2.0", "id": 1, "params": {}}, -32600, "No method"),
        ({"jsonrpc": "2.0", "id": 1, "method": "getinfo"}, -32600, "No params"),
        ({"jsonrpc": "2.0", "id": 1, "method": 5, "params": {}}, -32600, "Expected string for method"),
        ({"jsonrpc": "2.0", "id": 1, "method": "nosuch", "params": {}}, -32601, "Unknown command 'nosuch'"),
        (
            {"jsonrpc": "2.0", "id": 1, "method": "getinfo", "params": "x"},
            -32602,
            "Expected array or object for params",
        ),
        (
            {"jsonrpc": "2.0", "id": 1, "method": "check", "params": {"command_to_check": "nosuch"}},
            -32601,
            "Unknown command 'nosuch'",
        ),
    ],
)
async def test_a_malformed_request_gets_lightningds_error(
    rpc: RawRpc, sent: object, code: int, message: str
) -> None:
    """The connection goes on after it."""
    reply = await rpc.ask(json.dumps(sent).encode())
    assert reply["error"] == {"code": code, "message": message}
    assert (await rpc.ask(request("listpeers", {})))["result"] == {"peers": []}


@pytest.mark.parametrize("request_text", ['{"id":1,"method":"getinfo","params":{}}', "[{}]"])
async def test_a_request_without_jsonrpc_is_the_last_one_that_is_answered(
    rpc: RawRpc, request_text: str
) -> None:
    """lightningd ignores the connection from then on. This node closes it."""
    assert (await rpc.ask(request_text.encode()))["error"] == {
        "code": -32600,
        "message": f"JSON-RPC message does not contain \"jsonrpc\" field: '{request_text}'",
    }
    assert await asyncio.wait_for(rpc.reader.read(), 10) == b""


async def test_text_that_is_not_json_ends_the_connection_without_a_reply(rpc: RawRpc) -> None:
    """As recorded."""
    rpc.writer.write(b"hello\n")
    assert await asyncio.wait_for(rpc.reader.read(), 10) == b""


async def test_a_slow_command_does_not_hold_up_the_next_one(rpc: RawRpc) -> None:
    """Replies come in the order in which they are ready."""
    rpc.writer.write(request("waitblockheight", [100, 1], "slow") + request("listpeers", {}, "quick"))
    assert (await rpc.reply())["id"] == "quick"
    assert await rpc.reply() == {
        "jsonrpc": "2.0",
        "id": "slow",
        "error": {"code": 2000, "message": "Timed out."},
    }


async def test_the_reply_of_getinfo_has_spaces(rpc: RawRpc, alice: DevNode) -> None:
    """As some of lightningd's replies have; a reader must cope with both."""
    rpc.writer.write(request("getinfo", {}))
    raw = await rpc.reply_bytes()
    assert raw.startswith(b'{"jsonrpc": "2.0", "id": 1, "result": {"id": "')
    info = json.loads(raw)["result"]
    assert info["id"] == alice.id.hex()
    assert info["alias"] == "DEVNODE-no-channels-no-money"
    assert info["network"] == "regtest"
    assert info["version"].startswith("v26.06.6")
    assert info["lightning-dir"] == str(alice.network_dir)
    assert info["binding"] == [{"type": "ipv4", "address": "127.0.0.1", "port": alice.address.port}]
    assert info["num_active_channels"] == 0


async def test_pyln_client_works_unchanged(alice: DevNode, bob: DevNode) -> None:
    """The library that most of lightningd's clients are written with."""

    def talk() -> list[Any]:
        rpc = LightningRpc(str(alice.rpc_file))
        with rpc.notify(lambda **_: None):
            info = rpc.getinfo()
        rpc.connect(bob.id.hex(), bob.address.host, bob.address.port)
        return [info["id"], rpc.sendcustommsg(bob.id.hex(), "77790102"), rpc.listpeers()["peers"][0]["id"]]

    sent = {"status": "Message sent to connectd for delivery"}
    assert await asyncio.to_thread(talk) == [alice.id.hex(), sent, bob.id.hex()]
    assert (await bob.next_message()).message == bytes.fromhex("77790102")


async def test_the_requests_of_lightning_cli_are_understood(rpc: RawRpc) -> None:
    """It switches notifications on first, with id 0, and gives positional parameters."""
    enable = b'{ "jsonrpc" : "2.0", "method" : "notifications", "id" : 0, "params" : { "enable" : true } }'
    assert (await rpc.ask(enable))["result"] == {}
    getinfo = b'{ "jsonrpc" : "2.0", "method" : "getinfo", "id" : "cli:getinfo#1", "params" :[ ] }'
    assert (await rpc.ask(getinfo))["id"] == "cli:getinfo#1"


async def test_a_socket_path_of_any_length_works(tmp_path: Path) -> None:
    """An address of a unix socket holds about 100 bytes, a path more."""
    directory = tmp_path / ("long" * 30) / ("longer" * 20)
    async with devnode.run(directory) as node:
        assert len(str(node.rpc_file)) > 250
        info = await asyncio.to_thread(LightningRpc(str(node.rpc_file)).getinfo)
        assert info["id"] == node.id.hex()


async def test_the_socket_is_the_owners_alone(alice: DevNode) -> None:
    """Who may write to it may do everything."""
    assert alice.rpc_file.stat().st_mode & 0o777 == 0o600


async def test_stop_answers_and_leaves_a_dead_socket_behind(alice: DevNode, rpc: RawRpc) -> None:
    """ECONNREFUSED is how a stopped lightningd is found, not ENOENT."""
    assert await rpc.call("stop") == {"result": "Shutdown complete"}
    assert await asyncio.wait_for(rpc.reader.read(), 10) == b""
    await asyncio.wait_for(alice.stopped.wait(), 10)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(str(alice.rpc_file))


async def test_a_client_that_does_not_read_its_replies_gets_no_more_requests_read(alice: DevNode) -> None:
    """So that it cannot fill the node's memory with them."""
    async with raw_rpc(alice.rpc_file) as client:
        client.writer.transport.set_write_buffer_limits(high=0)
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        stuck = asyncio.create_task(_flood(client, request("getinfo", {}) * 1000))
        await asyncio.wait([stuck], timeout=1)
        assert not stuck.done()
        stuck.cancel()
        client.writer.transport.abort()


STRANGER = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
# None of them makes anyone ask a name server.
hosts = st.sampled_from(
    ["", "\0", "[", "]:1", ":", "::", "127.0.0.1:x", "127.0.0.1:99999", "\udcff", "x" * 70]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = [
    "id",
    "host",
    "port",
    "node_id",
    "msg",
    "force",
    "subcommand",
    "plugin",
    "enable",
    "command_to_check",
]
commands = ["getinfo", "listpeers", "disconnect", "sendcustommsg", "notifications", "plugin", "connect"]
parameters = (
    st.lists(st.sampled_from(commands) | st.just("start") | st.just("ab" * 33) | values, max_size=4)
    | st.dictionaries(st.sampled_from(names), st.sampled_from(["start", "stop"]) | values, max_size=4)
    | st.fixed_dictionaries({"id": hosts.map(lambda host: f"{STRANGER}@{host}")})
    | st.fixed_dictionaries({"id": st.just(STRANGER), "host": hosts})
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*commands, "check"]), parameters)
async def test_arbitrary_parameters_get_an_answer(
    rpc: RawRpc, alice: DevNode, method: str, params: Any
) -> None:
    """And one that was meant, on a connection that goes on."""
    answer = await rpc.call(method, params)
    assert answer.get("code") != -32603
    alice.would_have_died.clear()


async def test_many_connections_with_many_requests_each_get_their_own_replies(alice: DevNode) -> None:
    """Matched by id."""

    async def one(name: int) -> list[str]:
        async with raw_rpc(alice.rpc_file) as client:
            client.writer.write(b"".join(request("getinfo", {}, f"{name}-{i}") for i in range(50)))
            return [(await client.reply())["id"] for _ in range(50)]

    replies = await asyncio.gather(*(one(name) for name in range(20)))
    assert replies == [[f"{name}-{i}" for i in range(50)] for name in range(20)]


async def _flood(client: RawRpc, requests: bytes) -> None:
    for _ in range(1000):
        client.writer.write(requests)
        await client.writer.drain()
