"""The outbox through both clients and the command, over a real gateway on an embedded node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from custommsg import EntryNotWaiting, EntryUnknown, IdempotencyKeyReused, InvalidRequest, OutboxState
from custommsg.events import OutboxEntryEnded
from custommsg_cli.__main__ import main
from support import nodes
from support.either import Either
from support.gateways import gateway
from support.keys import node_id

from .conftest import Connect

AWAY = node_id(5)


@pytest.fixture
async def embedded(short_path: Path) -> AsyncIterator[nodes.Node]:
    """Run an embedded node with a peer."""
    async with nodes.embedded(short_path) as node:
        yield node


@pytest.fixture
async def address(embedded: nodes.Node) -> AsyncIterator[str]:
    """Run a gateway."""
    async with gateway(embedded.rpc_file) as address:
        yield address


async def listed(client: Either, **wanted: Any) -> list[Any]:
    """Return all that `outbox` yields."""
    entries = client.client.outbox(**wanted)
    if client.kind == "aio":
        return [entry async for entry in entries]
    return await asyncio.to_thread(list, entries)


async def test_both_clients_enqueue_look_list_and_cancel(
    connect: Connect, address: str, embedded: nodes.Node
) -> None:
    """What they return has every field, and errors have types."""
    client = connect(address)
    events = client.subscribe(outbox_events=True)
    expires = datetime.now(UTC) + timedelta(hours=1)
    one = await client(
        "enqueue", AWAY, type=40001, payload=b"a", key="k", expires=expires, at_least_once=True
    )
    again = await client("enqueue", AWAY, type=40001, payload=b"a", key="k")
    assert (one.state, one.existed, again.existed) == (OutboxState.WAITING_FOR_PEER, False, True)
    assert one.entry_id == again.entry_id
    two = await client("enqueue", embedded.peer.id, msg=b"\x9c\x41b", ttl=60)
    assert (await embedded.peer.next_message()).message == b"\x9c\x41b"
    entry = await client("outbox_entry", key="k")
    assert (entry.id, entry.peer_id_hex, entry.type, entry.payload) == (one.entry_id, AWAY.hex(), 40001, b"a")
    assert (entry.at_least_once, entry.direct, entry.expires) == (True, False, expires)
    assert [entry.id for entry in await listed(client)] == [one.entry_id, two.entry_id]
    waiting = await listed(client, states=[OutboxState.WAITING_FOR_PEER], peers=[AWAY])
    assert [entry.id for entry in waiting] == [one.entry_id]
    assert (await client("cancel", one.entry_id)).state is OutboxState.CANCELLED
    while (await client("outbox_entry", two.entry_id)).state is not OutboxState.SENT:
        await asyncio.sleep(0.01)
    with pytest.raises(EntryNotWaiting) as not_waiting:
        await client("cancel", two.entry_id)
    assert not_waiting.value.state == "SENT"
    with pytest.raises(EntryUnknown):
        await client("outbox_entry", "no such")
    with pytest.raises(IdempotencyKeyReused):
        await client("enqueue", AWAY, type=40001, key="k")
    for wrong in ({"key": ""}, {"key": "a b"}, {"ttl": -1}):
        with pytest.raises(InvalidRequest):
            await client("enqueue", AWAY, type=40001, **wrong)
    for bad in ({"ttl": 1, "expires": expires}, {"msg": b"\x9c\x41"}):
        with pytest.raises(TypeError):
            await client("enqueue", AWAY, type=40001, **bad)
    for both in ({}, {"entry_id": "a", "key": "b"}):
        with pytest.raises(TypeError):
            await client("cancel", **both)
    with pytest.raises(ValueError, match="time zone"):
        await client("enqueue", AWAY, type=40001, expires=datetime(2030, 1, 1))
    del events


async def test_an_ending_is_an_event(connect: Connect, address: str, embedded: nodes.Node) -> None:
    """Of the same subscription as messages; and of the list of events."""
    client = connect(address)
    enqueued = await client("enqueue", embedded.peer.id, type=40001, key="k")
    ended = await client.subscribe(from_beginning=True, outbox_events=True).next()
    assert isinstance(ended, OutboxEntryEnded)
    assert (ended.entry_id, ended.idempotency_key, ended.state, ended.type, ended.reason) == (
        enqueued.entry_id,
        "k",
        OutboxState.SENT,
        40001,
        "",
    )
    assert ended.peer_id == embedded.peer.id
    assert await client.list_events(outbox_events=True) == [ended]
    assert await client.list_events() == []


async def test_send_with_a_key_sends_once(connect: Connect, address: str, embedded: nodes.Node) -> None:
    """The second call returns, and the peer gets nothing."""
    client = connect(address)
    for _ in range(2):
        await client("send", embedded.peer.id, type=40001, key="k")
    await client("send", embedded.peer.id, type=40003)
    assert [(await embedded.peer.next_message()).type for _ in range(2)] == [40001, 40003]


async def test_the_command_queues_lists_watches_cancels_and_waits(
    address: str,
    embedded: nodes.Node,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For people and, with --json, for programs; the exit status says whether it was sent."""
    monkeypatch.setenv("CUSTOMMSG_ADDRESS", address)
    peer = embedded.peer.id.hex()

    async def command(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, arguments)
        return status, *capsys.readouterr()

    def content(out: str) -> Any:
        return json.loads(out.splitlines()[-1])  # the gateway logs to the same output

    status, out, err = await command("--json", "queue", AWAY.hex(), "--type", "40001", "--text", "a")
    assert (status, err) == (0, "")
    entry_id = content(out)["entry_id"]
    assert content(out)["state"] == "WAITING_FOR_PEER"
    status, out, _ = await command("outbox")
    assert status == 0
    assert entry_id in out
    assert "WAITING_FOR_PEER" in out
    status, out, _ = await command("--json", "outbox", "list", "--state", "sent")
    assert content(out) == []
    status, out, _ = await command("outbox", "cancel", entry_id)
    assert status == 0
    assert "CANCELLED" in out
    assert (await command("outbox", "cancel"))[0] == 2
    # Two, since the first may be the one that was cancelled; and all write to the same output.
    watching = asyncio.create_task(command("--json", "outbox", "watch", "--count", "2"))
    written = ""
    while not watching.done():
        status, out, err = await command("send", peer, "--type", "40001", "--text", "b", "--wait", "20")
        assert status == 0, err
        written += out
    written += (await watching)[1]
    told = [content(line) for line in written.splitlines() if line.startswith("{")]
    assert [(one["kind"], one["state"]) for one in told][-1:] == [("outbox_entry_ended", "SENT")]
    status, _, _ = await command("send", AWAY.hex(), "--type", "40001", "--wait", "0.2")
    assert status == 1
    assert (await command("queue", peer, "--type", "40000"))[0] == 2
    status, out, _ = await command("queue", AWAY.hex(), "--type", "40001", "--idempotency-key", "x")
    assert "Queued: entry " in out
    status, out, _ = await command("queue", AWAY.hex(), "--type", "40001", "--idempotency-key", "x")
    assert "Queued before: entry " in out
