"""The sending half of the core."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from custommsg_server.core.limits import PeerLimits, Rate
from custommsg_server.core.relay import Relay
from custommsg_server.domain.wire import join_message
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import Outbound
from support.callers import caller
from support.keys import node_id


async def test_a_batch_whose_caller_leaves_is_given_back(rpc_file: Path) -> None:
    """Its account is given back: else a caller that retries would shut a peer off for all."""
    limits = PeerLimits(Rate(messages_per_s=1, burst=0))
    relay = Relay(Lightningd(rpc_file), limits)
    batch = [Outbound(node_id(), join_message(40001, b""))] * 100
    waiting = asyncio.create_task(relay.admit(caller(), batch, asyncio.get_running_loop().time() + 1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limits.reserve(batch[:1]) == 0
