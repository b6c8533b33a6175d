"""Sending in the core."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from custommsg_server.core.limits import PeerLimits, Rate
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.core.once import Once
from custommsg_server.core.relay import Relay
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.wire import join_message
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import Outbound
from support.callers import caller
from support.keys import node_id
from support.standin import Connection, Request, StandIn


def _no_keys() -> Once:
    """Return what sends messages with keys; there are none here."""
    return Once(None)  # type: ignore[arg-type]


async def test_a_batch_whose_caller_leaves_is_given_back(rpc_file: Path) -> None:
    """Otherwise a caller that retries would use up the limit of a peer for all."""
    limits = PeerLimits(Rate(messages_per_s=1, burst=0))
    relay = Relay(Lightningd(rpc_file), limits, MemoryBudget(1 << 20), _no_keys())
    batch = [Outbound(node_id(), join_message(40001, b""))] * 100
    waiting = asyncio.create_task(relay.admit(caller(), batch, asyncio.get_running_loop().time() + 1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limits.reserve(batch[:1]) == 0


async def test_what_was_meant_for_a_peer_that_the_node_does_not_know_is_given_back(node: StandIn) -> None:
    """Nothing was sent, so the limits do not count it; for calls and streams."""

    async def unknown(connection: Connection, request: Request) -> None:
        connection.error(request, -32600, "No such peer")

    node.on_send = unknown
    limits = PeerLimits(Rate(messages_per_s=1, burst=0))
    outbound = Outbound(node_id(), join_message(40001, b""))
    link = Lightningd(node.rpc_file)
    running = asyncio.create_task(link.run())
    up = asyncio.Event()
    link.watch(lambda is_up: up.set() if is_up else None)
    await up.wait()
    relay, soon = (
        Relay(link, limits, MemoryBudget(1 << 20), _no_keys()),
        asyncio.get_running_loop().time() + 10,
    )
    with pytest.raises(RelayError) as caught:
        await relay.send(caller(), outbound, soon)
    assert caught.value.reason is Reason.PEER_UNKNOWN
    assert limits.reserve([outbound]) == 0
    [outcome] = await relay.send_batch(caller(), [outbound], soon)
    assert isinstance(outcome, RelayError)
    assert limits.reserve([outbound]) == 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
