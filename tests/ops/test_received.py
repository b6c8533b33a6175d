"""The metrics of receiving."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server import app
from custommsg_testing import devnode
from support.gateways import settings
from support.metrics import scrape, value


async def test_what_peers_send_is_counted_by_what_became_of_it(short_path: Path) -> None:
    """Stored or ignored, with the time that lightningd waited for the answer."""
    async with devnode.run(short_path / "node") as node, devnode.run(short_path / "peer") as peer:
        await peer.connect(node)
        options = settings(node.rpc_file, metrics_listen="127.0.0.1:0", ignore_types=("40003",))
        async with app.running(options) as gateway:
            await gateway.ready()
            # The node hands over what comes once it has read that its plugin is ready: a moment after that is said.
            while gateway.intake.stored < 2 or gateway.intake.ignored < 1:
                for number in (40001, 40003):
                    await peer.send(node.id, number.to_bytes(2, "big") + b"x")
                await asyncio.sleep(0.01)
            stored, ignored = gateway.intake.stored, gateway.intake.ignored
            metrics = await scrape(str(gateway.metrics))
    received = "custommsg_messages_received_total"
    assert value(metrics, received, outcome="STORED") >= stored
    assert value(metrics, received, outcome="IGNORED") >= ignored
    assert value(metrics, received, outcome="LOST") == 0
    assert value(metrics, "custommsg_hook_seconds_count") >= 1
    assert value(metrics, "custommsg_attached") == 1
    assert value(metrics, "custommsg_inbox_events") >= 2


async def test_a_peer_over_its_budget_is_counted_and_told_of(short_path: Path) -> None:
    """Its id is in the interruption for subscribers, and in no metric."""
    async with devnode.run(short_path / "node") as node, devnode.run(short_path / "peer") as peer:
        await peer.connect(node)
        options = settings(
            node.rpc_file,
            metrics_listen="127.0.0.1:0",
            peer_received_messages_per_s=0.001,
            peer_received_burst=0,
        )
        async with (
            app.running(options) as gateway,
            grpc.aio.insecure_channel(str(gateway.addresses[0])) as channel,
        ):
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            await gateway.ready()
            while gateway.intake.stored < 1 or gateway.intake.refused < 1:
                await peer.send(node.id, (40001).to_bytes(2, "big") + b"x")
                await asyncio.sleep(0.01)
            told: list[pb.Event] = []
            while not told:
                events = (await stub.ListEvents(pb.ListEventsRequest())).events
                told = [one for one in events if one.HasField("interruption") and one.peer_id]
            metrics = await scrape(str(gateway.metrics))
    assert told[0].peer_id == peer.id
    assert told[0].interruption.lost > 0
    assert value(metrics, "custommsg_messages_received_total", outcome="REFUSED") >= 1
    assert value(metrics, "custommsg_messages_evicted_total") == 0
    assert value(metrics, "custommsg_inbox_largest_share_ratio") > 0
    assert peer.id.hex() not in str(metrics)


async def test_an_inbox_that_fails_shows_and_hides_nothing_else(rpc_file: Path) -> None:
    """The other metrics can still be read."""
    (rpc_file.parent / "file").touch()
    options = settings(
        rpc_file, metrics_listen="127.0.0.1:0", receive=False, data_dir=rpc_file.parent / "file"
    )
    async with app.running(options) as gateway:
        metrics = await scrape(str(gateway.metrics))
    assert value(metrics, "custommsg_inbox_up") == 0
    assert "custommsg_inbox_events" not in metrics
    assert value(metrics, "custommsg_node_up") == 0
    assert "custommsg_calls" in metrics
