"""Plugins are started, called and stopped as lightningd does it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.devnode_plugin import write_plugin, write_script
from support.devnode_wire import RawRpc, raw_rpc


@asynccontextmanager
async def hosting(directory: Path, *plugins: Path, **settings: Any) -> AsyncIterator[tuple[DevNode, RawRpc]]:
    """Run a node with these plugins."""
    host = devnode.run(directory / "host", plugins=plugins, **settings)
    async with host as node, raw_rpc(node.rpc_file) as client:
        yield node, client


async def seen(client: RawRpc, *methods: str) -> list[Any]:
    """Return the calls and notifications that the plugin has had."""
    result = await client.call("seen", {})
    return [call for call in result["seen"] if not methods or call["method"] in methods]


async def test_a_plugin_is_introduced_with_getmanifest_and_init(tmp_path: Path) -> None:
    """The calls as recorded, with string ids; it runs in the network's directory, and is told what it is."""
    plugin = write_plugin(tmp_path)
    async with hosting(tmp_path, plugin) as (node, client):
        getmanifest, init = await seen(client, "getmanifest", "init")
        assert getmanifest["id"].startswith("cln:getmanifest#")
        assert getmanifest["params"] == {"allow-deprecated-apis": False}
        assert init["id"].startswith("cln:init#")
        configuration = init["params"].pop("configuration")
        assert init["params"] == {"options": {}}
        assert configuration.pop("feature_set").keys() >= {"init", "node", "channel", "invoice"}
        assert configuration == {
            "lightning-dir": str(node.network_dir),
            "rpc-file": "lightning-rpc",
            "startup": True,
            "network": "regtest",
        }
        result = await client.call("seen", {})
        assert result["environment"]["LIGHTNINGD_PLUGIN"] == "1"
        assert result["environment"]["LIGHTNINGD_VERSION"] == node.version
        assert result["directory"] == str(node.network_dir)


async def test_plugin_start_stop_and_list_answer_as_lightningd(tmp_path: Path) -> None:
    """And a plugin can be started again after its end."""
    plugin = write_plugin(tmp_path)
    entry = {"name": str(plugin), "active": True, "dynamic": True}
    async with hosting(tmp_path) as (_, client):
        assert await client.call("plugin", ["list"]) == {"command": "list", "plugins": []}
        for _ in range(2):
            started = await client.call("plugin", {"subcommand": "start", "plugin": str(plugin)}, "cli:x#1")
            assert started == {"command": "start", "plugins": [entry]}
            [getmanifest] = await seen(client, "getmanifest")
            assert getmanifest["id"].startswith("cli:x#1/cln:getmanifest#")
            [init] = await seen(client, "init")
            assert init["params"]["configuration"]["startup"] is False
            assert await client.call("plugin", ["list"]) == {"command": "list", "plugins": [entry]}
            stopped = await client.call("plugin", ["stop", "plugin.py"])
            assert stopped == {"command": "stop", "result": "Successfully stopped plugin.py."}
        assert await client.call("plugin", ["list"]) == {"command": "list", "plugins": []}


async def test_messages_reach_the_hook_in_order_without_waiting_for_answers(
    tmp_path: Path, alice: DevNode
) -> None:
    """The plugin holds all its answers back until it has had every call."""
    late = """
held = []
def on_custommsg(id, params):
    held.append(id)
    if len(held) == 100:
        for each in reversed(held):
            answer(each, result={"result": "continue"})
"""
    async with hosting(tmp_path, write_plugin(tmp_path, extra=late)) as (node, client):
        await alice.connect(node)
        for number in range(100):
            await alice.send(node.id, b"\x77\x79" + bytes([number]))
        for _ in range(100):
            await node.next_message()
        calls = await seen(client, "custommsg")
        payloads = [f"7779{number:02x}" for number in range(100)]
        assert [call["params"] for call in calls] == [
            {"payload": payload, "peer_id": alice.id.hex()} for payload in payloads
        ]
        assert all(call["id"].startswith("cln:custommsg#") for call in calls)


async def test_connects_and_disconnects_are_notified_in_order_with_the_messages(
    tmp_path: Path, alice: DevNode
) -> None:
    """With the shape as recorded, and no id."""
    async with hosting(tmp_path, write_plugin(tmp_path)) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x79")
        await alice.disconnect(node.id)
        await node.until_connected(alice.id, connected=False)
        connect, message, disconnect = await seen(client, "connect", "custommsg", "disconnect")
        address = connect["params"]["connect"].pop("address")
        assert (address["type"], address["address"]) == ("ipv4", "127.0.0.1")
        assert connect == {
            "jsonrpc": "2.0",
            "method": "connect",
            "params": {"connect": {"id": alice.id.hex(), "direction": "in"}},
        }
        assert message["params"]["payload"] == "7779"
        assert disconnect == {
            "jsonrpc": "2.0",
            "method": "disconnect",
            "params": {"disconnect": {"id": alice.id.hex()}},
        }


async def test_a_plugin_that_takes_hook_and_notification_sees_a_message_twice(
    tmp_path: Path, alice: DevNode
) -> None:
    """The notification came with v24.02, and comes first."""
    plugin = write_plugin(tmp_path, subscriptions=["custommsg"])
    async with hosting(tmp_path, plugin) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x79\x01")
        await node.next_message()
        notification, call = await seen(client, "custommsg")
        content = {"peer_id": alice.id.hex(), "payload": "777901"}
        assert notification["params"] == {"custommsg": content}
        assert "id" not in notification
        assert call["params"] == content


async def test_the_hook_is_called_for_the_types_of_its_filters_only(tmp_path: Path, alice: DevNode) -> None:
    """As of v25.12."""
    plugin = write_plugin(tmp_path, hooks=[{"name": "custommsg", "filters": [0x7779, 0x777D]}])
    async with hosting(tmp_path, plugin) as (node, client):
        await alice.connect(node)
        for message in (b"\x77\x79", b"\x77\x7b", b"\x77\x7d"):
            await alice.send(node.id, message)
            await node.next_message()
        calls = await seen(client, "custommsg")
        assert [call["params"]["payload"] for call in calls] == ["7779", "777d"]


async def test_an_even_type_is_accepted_while_a_plugin_that_declares_it_runs(
    tmp_path: Path, alice: DevNode
) -> None:
    """The manifest's `custommessages`."""
    plugin = write_plugin(tmp_path, custommessages=[0x7778])
    async with hosting(tmp_path, plugin) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x78")
        assert (await node.next_message()).message == b"\x77\x78"
        await client.call("plugin", ["stop", str(plugin)])
        await alice.send(node.id, b"\x77\x78")
        await alice.until_connected(node.id, connected=False)


async def test_the_nodes_own_traffic_goes_through_the_hook_too(tmp_path: Path, alice: DevNode) -> None:
    """Peer storage and commando: lightningd keeps nothing of it from plugins."""
    async with hosting(tmp_path, write_plugin(tmp_path)) as (node, client):
        await alice.connect(node)
        for number in (7, 9, 0x4C4D, 0x4C4F, 0x594B, 0x594D):
            await alice.send(node.id, number.to_bytes(2, "big") + b"{}")
            await node.next_message()
        calls = await seen(client, "custommsg")
        assert [call["params"]["payload"][:4] for call in calls] == [
            "0007",
            "0009",
            "4c4d",
            "4c4f",
            "594b",
            "594d",
        ]


@pytest.mark.parametrize(
    "answer",
    [
        'result={"result": "stop"}',
        'result={"result": 1}',
        "result={}",
        'result="continue"',
        "result=None",
        'error={"code": -1, "message": "oops"}',
        "other=1",
    ],
)
async def test_an_answer_to_the_hook_other_than_continue_is_recorded_as_the_nodes_death(
    tmp_path: Path, alice: DevNode, answer: str
) -> None:
    """A JSON-RPC error among them. This node records it, and goes on."""
    extra = f"def on_custommsg(id, params):\n    answer(id, {answer})\n"
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x79")
        await node.next_message()
        await seen(client)
        [death] = node.would_have_died
        assert death.startswith("real lightningd would have crashed here: plugin plugin.py answered")
        node.would_have_died.clear()


async def test_several_plugins_are_asked_one_after_the_other(tmp_path: Path, alice: DevNode) -> None:
    """The second one sees a message when the first one has answered."""
    stuck = """
def on_custommsg(id, params):
    if params["payload"] != "7779ff":
        answer(id, result={"result": "continue"})
"""
    first = write_plugin(tmp_path, "first.py", extra=stuck, rpcmethods=[])
    second = write_plugin(tmp_path, "second.py")
    async with hosting(tmp_path, first, second) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x79\xff")
        await alice.send(node.id, b"\x77\x79\x01")
        while not (calls := await seen(client, "custommsg")):
            pass
        assert [call["params"]["payload"] for call in calls] == ["777901"]
        # The first one's end answers for it: the next one is asked.
        await client.call("plugin", ["stop", "first.py"])
        while len(calls := await seen(client, "custommsg")) < 2:
            pass
        assert calls[1]["params"]["payload"] == "7779ff"


async def test_a_plugin_that_dies_with_calls_unanswered_is_logged_and_the_node_goes_on(
    tmp_path: Path, alice: DevNode, caplog: pytest.LogCaptureFixture
) -> None:
    """It can be started again at once."""
    caplog.set_level("INFO")
    plugin = write_plugin(tmp_path, extra="def on_custommsg(id, params):\n    sys.exit(3)\n")
    async with hosting(tmp_path, plugin) as (node, client):
        await alice.connect(node)
        hosted = node.plugins.find("plugin.py")
        await alice.send(node.id, b"\x77\x79")
        await asyncio.wait_for(hosted.exited.wait(), 10)
        await alice.send(node.id, b"\x77\x7b")
        assert [(await node.next_message()).type for _ in range(2)] == [0x7779, 0x777B]
        assert await client.call("plugin", ["list"]) == {"command": "list", "plugins": []}
        await client.call("plugin", ["start", str(plugin)])
        assert await seen(client, "custommsg") == []
    assert "plugin-plugin.py: Killing plugin: exited during normal operation" in caplog.text
    assert "1 calls were not answered" in caplog.text


async def test_a_killed_plugin_is_noticed(tmp_path: Path) -> None:
    """kill -9 from outside."""
    extra = "def on_init(id, params):\n    answer(id, result={})\nopen('pid', 'w').write(str(os.getpid()))\n"
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (node, client):
        hosted = node.plugins.find("plugin.py")
        os.kill(int((node.network_dir / "pid").read_text()), signal.SIGKILL)
        await asyncio.wait_for(hosted.exited.wait(), 10)
        assert list(node.plugins) == []
        assert (await client.call("seen", {}))["code"] == -32601


OPTIONS = [
    {"name": "a-text", "type": "string", "default": "x", "description": ""},
    {"name": "a-number", "type": "int", "description": ""},
    {"name": "a-bool", "type": "bool", "default": False, "description": ""},
    {"name": "a-flag", "type": "flag", "description": ""},
    {"name": "a-list", "type": "string", "multi": True, "description": ""},
    {"name": "unset", "type": "string", "description": ""},
]


async def test_options_come_from_the_host_or_from_the_start_command(tmp_path: Path) -> None:
    """With the types of the manifest; what is not set and has no default is left out."""
    plugin = write_plugin(tmp_path, options=OPTIONS)
    options = {"a-number": "5", "a-list": ["y", "z"], "of-another-plugin": 1}
    async with hosting(tmp_path, plugin, options=options) as (_, client):
        [init] = await seen(client, "init")
        assert init["params"]["options"] == {
            "a-text": "x",
            "a-number": 5,
            "a-bool": False,
            "a-list": ["y", "z"],
        }
        await client.call("plugin", ["stop", "plugin.py"])
        given = {"a-text": "t", "a-number": 7, "a-bool": "true", "a-flag": True}
        await client.call("plugin", {"subcommand": "start", "plugin": str(plugin), **given})
        [init] = await seen(client, "init")
        assert init["params"]["options"] == {
            "a-text": "t",
            "a-number": 7,
            "a-bool": True,
            "a-flag": True,
            "a-list": ["y", "z"],
        }


async def test_plugin_fails_with_lightningds_texts(tmp_path: Path) -> None:
    """Codes -32602 and -3."""
    running = write_plugin(tmp_path, "running.py")
    other = write_plugin(tmp_path, "other.py", options=OPTIONS, rpcmethods=[])
    static = write_plugin(tmp_path, "static.py", dynamic=False, rpcmethods=[])
    exits = write_script(tmp_path, "exit 0", "exits.sh")
    talks = write_script(tmp_path, "echo hello; exec sleep 60", "talks.sh")
    disabled = write_plugin(tmp_path, "disabled.py", disable="not today")
    (tmp_path / "text").write_text("")
    missing = tmp_path / "missing"

    def start(plugin: Path, **options: object) -> dict[str, object]:
        return {"subcommand": "start", "plugin": str(plugin), **options}

    expected: list[tuple[object, int, str]] = [
        ([], -32602, "missing required parameter: subcommand"),
        (["nosuch"], -32602, "Unknown subcommand 'nosuch'"),
        (["start"], -32602, "missing required parameter: plugin"),
        (["start", str(running)], -32602, f"{running}: already registered"),
        (start(missing), -32602, f"{missing} is not executable: No such file or directory"),
        (start(tmp_path / "text"), -32602, f"{tmp_path}/text is not executable: Permission denied"),
        (start(other, nosuch=1), -3, f"{other}: unknown parameter nosuch"),
        (start(other, **{"a-number": "x"}), -3, f"{other}: 'x' is not a number"),
        (start(other, **{"a-bool": "maybe"}), -3, f"{other}: Invalid argument 'maybe'"),
        (["start", str(other), "a-flag"], -32602, "Extra parameters must be in object"),
        (start(exits), -3, f"{exits}: exited before replying to getmanifest"),
        (start(static), -3, f"{static}: Not a dynamic plugin"),
        (start(disabled), -3, f"{disabled}: disabled itself: not today"),
        (["stop", "nosuch"], -32602, "Could not find plugin nosuch"),
    ]
    async with hosting(tmp_path, running) as (_, client):
        for params, code, message in expected:
            assert await client.call("plugin", params) == {"code": code, "message": message}
        error = await client.call("plugin", start(talks))
        assert error["code"] == -3
        assert error["message"] == f"{talks}: Failed to parse RPC JSON response 'hello\n'"
        assert len((await client.call("plugin", ["list"]))["plugins"]) == 1


async def test_a_static_plugin_runs_when_it_comes_with_the_node(tmp_path: Path) -> None:
    """But it cannot be stopped alone."""
    plugin = write_plugin(tmp_path, dynamic=False)
    async with hosting(tmp_path, plugin) as (_, client):
        error = await client.call("plugin", ["stop", str(plugin)])
        assert error == {"code": -32602, "message": f"{plugin} cannot be managed when lightningd is up"}


async def test_a_plugin_that_fails_does_not_keep_the_node_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, and the log says why."""
    async with hosting(tmp_path, write_script(tmp_path, "exit 1"), write_plugin(tmp_path)) as (node, _):
        assert [plugin.name for plugin in node.plugins] == ["plugin.py"]
    assert "exited before replying to getmanifest" in caplog.text


async def test_a_plugin_may_call_the_rpc_while_it_is_initialised(tmp_path: Path) -> None:
    """The socket is open before the first init."""
    extra = """
def on_init(id, params):
    import socket
    rpc = socket.socket(socket.AF_UNIX)
    rpc.connect(params["configuration"]["rpc-file"])
    rpc.sendall(b'{"jsonrpc":"2.0","id":"x","method":"listpeers","params":{}}')
    seen.append(dict(method="reply", text=rpc.recv(1000).decode()))
    answer(id, result={})
"""
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (_, client):
        [reply] = await seen(client, "reply")
        assert reply["text"] == '{"jsonrpc":"2.0","id":"x","result":{"peers":[]}}\n\n'


async def test_a_plugin_that_asked_for_it_is_told_of_the_shutdown(tmp_path: Path) -> None:
    """And may take its time; a plugin that did not ask is killed."""
    extra = """
import atexit
atexit.register(lambda: open("farewell", "w").write(seen[-1]["method"]))
"""
    plugin = write_plugin(tmp_path, extra=extra, subscriptions=["shutdown"])
    async with hosting(tmp_path, plugin) as (node, client):
        farewell = node.network_dir / "farewell"
        stopped = await client.call("plugin", ["stop", "plugin.py"])
        assert stopped["result"] == "Successfully stopped plugin.py."
        assert farewell.read_text() == "shutdown"
        farewell.unlink()
        await client.call("plugin", ["start", str(plugin)])
    assert farewell.read_text() == "shutdown"


async def test_a_killed_node_takes_its_plugins_with_it(tmp_path: Path) -> None:
    """Without a notification."""
    async with hosting(tmp_path, write_plugin(tmp_path, subscriptions=["shutdown"])) as (node, _):
        hosted = node.plugins.find("plugin.py")
        await node.kill()
        assert hosted.exited.is_set()


async def test_what_a_plugin_logs_is_in_the_nodes_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its name and its level, line by line. For an unknown level the plugin is killed."""
    extra = r"""
def log(**params):
    sys.stdout.write(json.dumps(dict(jsonrpc="2.0", method="log", params=params)) + "\n\n")

def on_init(id, params):
    log(level="warn", message="one\ntwo")
    answer(id, result={})

def on_custommsg(id, params):
    log(level="loud", message="three")
    sys.stdout.flush()
"""
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (node, _):
        assert "plugin-plugin.py: one\n" in caplog.text
        assert "plugin-plugin.py: two\n" in caplog.text
        hosted = node.plugins.find("plugin.py")
        node.plugins.message(bytes(33), b"\x77\x79")
        await asyncio.wait_for(hosted.exited.wait(), 10)
        assert hosted.why_gone.startswith("Unknown log-level loud, valid values are")


async def test_a_plugins_own_command_is_forwarded_with_its_errors(tmp_path: Path) -> None:
    """And with `Unknown command` when the plugin is gone."""
    extra = """
class Fails(dict):
    pass
_answer = answer
def answer(id, **fields):
    if isinstance(id, str) and id.startswith("fail/"):
        return _answer(id, error=dict(code=7, message="no"))
    return _answer(id, **fields)
"""
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (_, client):
        assert "seen" in await client.call("seen", [1])
        assert await client.call("seen", {}, "fail") == {"code": 7, "message": "no"}
        assert await client.call("check", ["seen"]) == {"command_to_check": "seen"}
        await client.call("plugin", ["stop", "plugin.py"])
        assert await client.call("seen", {}) == {"code": -32601, "message": "Unknown command 'seen'"}


async def test_a_plugin_written_with_pyln_client_works(tmp_path: Path, alice: DevNode) -> None:
    """The library that the gateway's own channel is built on."""
    source = """
from pyln.client import Plugin
plugin = Plugin()
told = []

@plugin.init()
def init(options, configuration, plugin):
    plugin.log("initialised, the node is " + plugin.rpc.getinfo()["id"])

@plugin.hook("custommsg")
def on_custommsg(peer_id, payload, plugin, **kwargs):
    told.append(payload)
    return {"result": "continue"}

@plugin.subscribe("connect")
def on_connect(plugin, **kwargs):
    told.append("connect")

@plugin.method("told")
def told_so_far(plugin):
    return {"told": told}

plugin.run()
"""
    path = write_script(tmp_path, "", "with_pyln.py")
    path.write_text(f"#!{sys.executable}\n{source}")
    async with hosting(tmp_path, path) as (node, client):
        await alice.connect(node)
        await alice.send(node.id, b"\x77\x79\x01")
        await node.next_message()
        assert await client.call("told", {}) == {"told": ["connect", "777901"]}


async def test_a_plugin_that_does_not_read_slows_its_peers_down_instead_of_filling_the_memory(
    tmp_path: Path, alice: DevNode
) -> None:
    """lightningd would keep all of it."""
    extra = "import time\ndef on_custommsg(id, params):\n    time.sleep(3600)\n"
    async with hosting(tmp_path, write_plugin(tmp_path, extra=extra)) as (node, _):
        await alice.connect(node)
        sending = asyncio.create_task(_send(alice, node, 2000))
        await asyncio.wait([sending], timeout=1)
        assert not sending.done()
        assert node.received.count < 1000
        sending.cancel()


async def _send(sender: DevNode, receiver: DevNode, count: int) -> None:
    for _ in range(count):
        await sender.send(receiver.id, b"\x77\x79" + bytes(60_000))
