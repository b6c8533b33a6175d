"""The plugin channel: the answer to each hook call is `continue`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.node.lightningd.channel import Channel, DeclinedError
from custommsg_server.node.lightningd.manifest import Init, Manifest, PluginOptions
from support.keys import node_id

PEER = node_id(7).hex()
COMMANDO = {0x4C4D, 0x4C4F, 0x594B, 0x594D}


class Intake:
    """Stores arrivals in a list, or fails as the test says."""

    def __init__(self, fault: str = "") -> None:
        self.arrivals: list[Arrival] = []
        self.fault = fault
        self.is_full = False
        self.room = asyncio.Event()

    def takes(self, message_type: int) -> bool:
        return message_type not in COMMANDO

    def append(
        self, arrivals: Sequence[Arrival], answer: Callable[[bool], None] = lambda is_kept: None
    ) -> None:
        if self.fault == "raises":
            raise OSError("disk on fire")
        if self.fault != "loses":
            self.arrivals += arrivals
        if self.fault == "is slow":
            asyncio.get_running_loop().call_soon(answer, True)
        else:
            answer(self.fault != "loses")

    async def has_room(self) -> None:
        await self.room.wait()


class Pipe(asyncio.Transport):
    """A transport that records the written data."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def replies(self) -> list[dict[str, Any]]:
        """Return the replies as lightningd reads them, without log notifications."""
        replies = [json.loads(part) for part in self.written.split(b"\n\n") if part]
        assert self.written == b"" or self.written.endswith(b"\n\n")
        return [reply for reply in replies if "id" in reply]


def call(method: str, params: Any, request_id: Any = "cln:x#1") -> bytes:
    """Make a request as lightningd writes it."""
    return (
        json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()
        + b"\n\n"
    )


def hook(number: int, payload: str, peer: str = PEER) -> bytes:
    """Make a call of the custommsg hook."""
    return call("custommsg", {"payload": payload, "peer_id": peer}, f"cln:custommsg#{number}")


INIT = call(
    "init",
    {
        "options": {},
        "configuration": {
            "lightning-dir": "/l/regtest",
            "rpc-file": "lightning-rpc",
            "startup": False,
            "network": "regtest",
        },
    },
    "cln:init#1",
)
GETMANIFEST = call("getmanifest", {"allow-deprecated-apis": False}, "cln:getmanifest#1")


async def settle() -> None:
    """Let the tasks that are ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def opened(
    intake: Intake, declines: str = "", options: PluginOptions | None = None
) -> tuple[Channel, Pipe]:
    """Open a channel and introduce lightningd to it."""

    async def on_init(channel: Channel, init: Init) -> Intake:
        if declines:
            raise DeclinedError(declines)
        intake.append([Arrival(Kind.INTERRUPTION, 0)])
        return intake

    channel = Channel(Manifest(options or PluginOptions()), on_init, lambda channel: None)
    pipe = Pipe()
    channel.connection_made(pipe)
    channel.data_received(GETMANIFEST + INIT)
    await settle()
    return channel, pipe


async def test_lightningd_is_told_who_we_are() -> None:
    """The manifest declares the hook, the notifications, the even types and the filters."""
    _, pipe = await opened(Intake(), options=PluginOptions(even_types=[30584], filters=[30585]))
    manifest, init = (reply["result"] for reply in pipe.replies())
    assert manifest["hooks"] == [{"name": "custommsg", "before": [], "after": [], "filters": [30585]}]
    assert set(manifest["subscriptions"]) == {"connect", "disconnect", "shutdown"}
    assert manifest["custommessages"] == [30584]
    assert manifest["dynamic"] is True
    assert manifest["rpcmethods"] == []
    assert init in ({}, None)


async def test_a_gateway_that_cannot_run_says_why_to_lightningd() -> None:
    """lightningd logs the reason and continues without the gateway."""
    _, pipe = await opened(Intake(), declines="the port is taken")
    assert pipe.replies()[1]["result"] == {"disable": "the port is taken"}


async def test_messages_and_peers_events_are_kept_in_order() -> None:
    """The payload is the whole message; connects and disconnects are in order with the messages."""
    intake = Intake()
    channel, pipe = await opened(intake)
    connect = {"connect": {"id": PEER, "direction": "in", "address": {"type": "ipv4"}}}
    lines = [
        {"jsonrpc": "2.0", "method": "connect", "params": connect},
        {"jsonrpc": "2.0", "method": "disconnect", "params": {"disconnect": {"id": PEER}}},
        {"jsonrpc": "2.0", "method": "disconnect", "params": {"id": PEER}},
        {"jsonrpc": "2.0", "method": "block_added", "params": {}},
    ]
    first, *rest = (json.dumps(line).encode() + b"\n\n" for line in lines)
    channel.data_received(first + hook(1, "7779aa00") + b"".join(rest))
    await settle()
    kinds = [Kind.INTERRUPTION, Kind.CONNECTED, Kind.MESSAGE, Kind.DISCONNECTED, Kind.DISCONNECTED]
    assert [arrival.kind for arrival in intake.arrivals] == kinds
    assert intake.arrivals[2].message == bytes.fromhex("7779aa00")
    assert {arrival.peer_id for arrival in intake.arrivals[1:]} == {node_id(7)}
    assert pipe.replies()[-1] == {"jsonrpc": "2.0", "id": "cln:custommsg#1", "result": {"result": "continue"}}


async def test_a_commando_message_is_neither_kept_nor_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Its payload contains a rune; it is answered like any other."""
    intake = Intake()
    channel, pipe = await opened(intake)
    rune = b"zpTgJHNmW"
    channel.data_received(hook(1, "4c4d" + rune.hex()) + hook(2, "4c4d", "junk" + rune.hex()))
    await settle()
    assert len(pipe.replies()) == 4
    assert [arrival.kind for arrival in intake.arrivals] == [Kind.INTERRUPTION]
    printed = "".join(capsys.readouterr())
    assert rune.hex() not in printed
    assert rune.decode() not in printed


async def test_each_hook_call_has_an_id_of_its_own() -> None:
    """A repeated call has the same id, so it is stored once; calls of other channels have other ids."""
    ids: list[list[str]] = []
    for _ in range(2):
        intake = Intake()
        channel, _ = await opened(intake)
        channel.data_received(hook(1, "9c41") + hook(2, "9c42") + hook(1, "9c41"))
        channel.data_received(call("custommsg", {"payload": "9c43", "peer_id": PEER}, 1))
        channel.data_received(call("custommsg", {"payload": "9c43", "peer_id": PEER}, ["x" * 1000]))
        channel.data_received(call("custommsg", {"payload": "9c43", "peer_id": PEER}, "x" * 1000))
        assert all(arrival.id == "" for arrival in intake.arrivals if arrival.kind is not Kind.MESSAGE)
        ids.append([arrival.id for arrival in intake.arrivals if arrival.kind is Kind.MESSAGE])
    for first, second, again, number, *unusable in ids:
        assert len({first, second, number}) == 3
        assert first == again
        assert unusable == ["", ""]
    assert not set(ids[0][:4]) & set(ids[1][:4])


@pytest.mark.parametrize("fault", ["raises", "loses", "is slow"])
async def test_an_inbox_that_fails_changes_nothing_for_lightningd(fault: str) -> None:
    """A full disk must not harm the node."""
    intake = Intake()
    channel, pipe = await opened(intake)
    intake.fault = fault
    channel.data_received(hook(1, "9c41") + hook(2, "9c42"))
    await settle()
    assert [reply["result"] for reply in pipe.replies()[2:]] == [{"result": "continue"}] * 2


async def test_a_full_inbox_stops_the_reading_until_it_has_room() -> None:
    """Meanwhile the messages stay in lightningd's buffer."""
    intake = Intake()
    channel, pipe = await opened(intake)
    intake.is_full = True
    channel.data_received(hook(1, "9c41"))
    assert pipe.paused
    intake.is_full = False
    intake.room.set()
    await settle()
    assert not pipe.paused


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
payloads = st.binary(max_size=40).map(bytes.hex) | st.text(max_size=10) | st.just("9c41" * 40_000)
hook_params = (
    json_values
    | st.fixed_dictionaries({}, optional={"payload": payloads | json_values, "peer_id": json_values})
    | st.fixed_dictionaries({"payload": payloads, "peer_id": st.just(PEER)})
)
ids = st.text() | st.integers() | st.lists(st.text(), max_size=2) | st.floats(allow_nan=False)
hooks = st.builds(lambda params, one: (one, call("custommsg", params, one)), hook_params, ids)
garbage = (
    st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"") + b"\n\n")
    | json_values.map(lambda value: json.dumps(value).encode() + b"\n\n")
    | st.builds(call, st.sampled_from(["init", "getmanifest", "setconfig", "x"]), json_values)
    | st.just(b"[" * 100_000 + b"\n\n")
    | st.just(b"\n\n\n\n")
).map(lambda raw: (None, raw))


@given(
    parts=st.lists(hooks | garbage, max_size=12),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
    fault=st.sampled_from(["", "", "raises", "loses", "is slow"]),
)
def test_every_hook_call_is_answered_with_continue_and_nothing_else(
    parts: list[tuple[Any, bytes]], cuts: list[int], fault: str
) -> None:
    """Arbitrary, huge or malformed JSON, split anywhere: each hook call gets one `continue`."""

    async def run() -> None:
        intake = Intake()
        channel, pipe = await opened(intake)
        intake.fault = fault
        before = len(pipe.replies())
        stream = b"".join(raw for _, raw in parts)
        places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            channel.data_received(stream[start:end])
            await settle()
        assert not pipe.closed
        replies = pipe.replies()[before:]
        hook_ids = [one for one, _ in parts if one is not None]
        continued = [r["id"] for r in replies if r.get("result") == {"result": "continue"}]
        assert sorted(map(json.dumps, continued)) == sorted(map(json.dumps, hook_ids))
        if not fault:
            sent = [json.loads(raw)["params"] for one, raw in parts if one is not None]
            valid = [p["payload"].lower() for p in sent if isinstance(p, dict) and p.get("peer_id") == PEER]
            kept = [a.message.hex() for a in intake.arrivals if a.kind is Kind.MESSAGE]
            assert all(message in valid for message in kept), "no byte of one message is in another"

    asyncio.run(run())
