"""The outbox and runes: judged when a message is enqueued, and again when it is sent."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_testing import devnode
from support import nodes
from support.every_rpc import Metadata, until_serving
from support.gateways import gateway

from .conftest import MakeRune

if TYPE_CHECKING:
    Stub = custommsg_pb2_grpc.CustomMsgServiceAsyncStub

S = pb.OutboxState


@asynccontextmanager
async def guarded(node: nodes.Node, **more: Any) -> AsyncIterator[Stub]:
    """Run a gateway that asks for runes, each time anew."""
    async with (
        gateway(node.rpc_file, insecure=False, rune_check_interval=0, **more) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await until_serving(channel)
        yield custommsg_pb2_grpc.CustomMsgServiceStub(channel)


def shown(rune: str) -> Metadata:
    """Return the metadata that show a rune."""
    return (("rune", rune),)


async def enqueue(stub: Stub, rune: str, peer_id: bytes, message_type: int = 0x9419, key: str = "") -> str:
    """Enqueue a message; return the id of its entry."""
    outbound = pb.OutboundMsg(
        peer_id=peer_id, msg=message_type.to_bytes(2, "big") + b"\x01", idempotency_key=key
    )
    request = pb.EnqueueCustomMsgRequest(message=pb.OutboxMsg(outbound=outbound))
    response = await stub.EnqueueCustomMsg(request, metadata=shown(rune))
    return str(response.entry_id)


async def ended(stub: Stub, rune: str, entry_id: str) -> pb.OutboxEntry:
    """Wait until an entry has ended."""
    async with asyncio.timeout(20):
        while True:
            request = pb.GetOutboxEntryRequest(entry_id=entry_id)
            entry: pb.OutboxEntry = (await stub.GetOutboxEntry(request, metadata=shown(rune))).entry
            if entry.state > S.OUTBOX_STATE_SENDING:
                return entry
            await asyncio.sleep(0.01)


async def absent(directory: Path) -> bytes:
    """Return the id of a peer that does not run."""
    async with devnode.run(directory) as peer:
        return peer.id


async def test_the_messages_of_a_rune_that_was_withdrawn_are_not_sent(
    embedded: nodes.Node, make_rune: MakeRune, short_path: Path
) -> None:
    """They fail with NOT_PERMITTED; those of another rune arrive."""
    peer_id = await absent(short_path / "late")
    withdrawn, valid = await make_rune(["method=enqueuecustommsg"]), await make_rune()
    async with guarded(embedded) as stub:
        lost = await enqueue(stub, withdrawn, peer_id)
        kept = await enqueue(stub, valid, peer_id)
        unique_id = int(base64.urlsafe_b64decode(withdrawn)[32:].split(b"&")[0].removeprefix(b"="))
        await embedded.call("blacklistrune", start=unique_id, end=unique_id)
        async with devnode.run(short_path / "late") as peer:
            await peer.connect(f"{embedded.id.hex()}@{embedded.address}")
            entry = await ended(stub, valid, kept)
            assert (entry.state, entry.caller) == (S.OUTBOX_STATE_SENT, entry.caller)
            entry = await ended(stub, valid, lost)
            assert (entry.state, entry.reason) == (S.OUTBOX_STATE_FAILED, pb.REASON_NOT_PERMITTED)
            assert (await peer.next_message()).message == b"\x94\x19\x01"
            assert not len(peer.received)


async def test_a_rune_is_judged_again_after_a_restart_from_what_was_stored(
    embedded: nodes.Node, make_rune: MakeRune, short_path: Path
) -> None:
    """The file has only a rune that permits nothing but enqueueing."""
    peer_id = await absent(short_path / "late")
    rune = await make_rune(["pnamemsg^9419"])
    folder = short_path / "data"

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())

    async with guarded(embedded, data_dir=folder) as stub:
        entry_id = await enqueue(stub, rune, peer_id)
    stored = await asyncio.to_thread(on_disk)
    assert rune.encode() not in stored
    with sqlite3.connect(folder / "outbox.sqlite3") as connection:
        [(text,)] = connection.execute("SELECT text FROM credentials")
    narrow = base64.urlsafe_b64decode(text.removeprefix("rune:"))
    assert narrow.endswith(b"&pnamemsg^9419&method=enqueuecustommsg")
    async with guarded(embedded, data_dir=folder) as stub:
        async with devnode.run(short_path / "late") as peer:
            await peer.connect(f"{embedded.id.hex()}@{embedded.address}")
            assert (await ended(stub, await make_rune(), entry_id)).state == S.OUTBOX_STATE_SENT


async def test_a_caller_sees_and_cancels_what_its_rune_permits(
    embedded: nodes.Node, make_rune: MakeRune, short_path: Path
) -> None:
    """By type; a key belongs to the rune that has used it."""
    peer_id = await absent(short_path / "late")
    wide, narrow = await make_rune(), await make_rune(["pnamemsg^9419"])
    async with guarded(embedded) as stub:
        visible = await enqueue(stub, wide, peer_id, 0x9419)
        hidden = await enqueue(stub, wide, peer_id, 0x941B, key="k")
        page = await stub.ListOutbox(pb.ListOutboxRequest(), metadata=shown(narrow))
        assert [entry.id for entry in page.entries] == [visible]
        for method, kind in (
            (stub.GetOutboxEntry, pb.GetOutboxEntryRequest),
            (stub.CancelOutboxEntry, pb.CancelOutboxEntryRequest),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await method(kind(entry_id=hidden), metadata=shown(narrow))  # type: ignore[operator]
            assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await method(kind(idempotency_key="k"), metadata=shown(narrow))  # type: ignore[operator]
            assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        await stub.CancelOutboxEntry(pb.CancelOutboxEntryRequest(entry_id=visible), metadata=shown(narrow))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await enqueue(stub, narrow, peer_id, 0x941B)
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_rune_with_a_rate_cannot_enqueue(
    embedded: nodes.Node, make_rune: MakeRune, short_path: Path
) -> None:
    """Each message would be used twice: when it is enqueued, and when it is sent."""
    peer_id = await absent(short_path / "late")
    async with guarded(embedded) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await enqueue(stub, await make_rune(["rate=60"]), peer_id)
        assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "rate" in str(failed.value.details())
