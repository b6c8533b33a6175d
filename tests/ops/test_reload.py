"""Limits that SIGHUP changes apply to a running gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from custommsg_server import app
from custommsg_server.access.accounts import Accounts, CallerLimits
from custommsg_server.core.limits import PeerLimits, Rate
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import join_message
from custommsg_server.node.port import Outbound
from custommsg_server.settings import RELOADABLE, Settings
from support.gateways import settings
from support.keys import node_id
from support.standin import StandIn


def test_what_may_be_changed_is_a_setting() -> None:
    """Each name is that of a setting."""
    assert set(Settings.model_fields) > RELOADABLE


def test_a_peers_limits_change_for_what_is_sent_next() -> None:
    """Earlier messages still count."""
    limits = PeerLimits(Rate(messages_per_s=1, burst=0), clock=lambda: 0.0)
    message = Outbound(node_id(), join_message(40001, b""))
    limits.take(message)
    with pytest.raises(RelayError):
        limits.take(message)
    limits.set(Rate(messages_per_s=1, burst=10))
    limits.take(message)


def test_a_callers_limits_change_for_its_next_call() -> None:
    """Its calls in progress continue."""
    callers = Accounts(CallerLimits(calls=1))
    callers.begin("somebody")
    with pytest.raises(RelayError):
        callers.begin("somebody")
    callers.set(CallerLimits(calls=2))
    callers.begin("somebody")


async def test_a_memory_budget_changes_for_what_is_used_next() -> None:
    """What is in use stays, and whoever waits for room may go on when there is more."""
    memory = MemoryBudget(100)
    memory.hold("somebody", "streams", 60)
    waiting = asyncio.ensure_future(memory.room("somebody"))
    await asyncio.sleep(0)
    memory.set(40)
    assert memory.free == -20
    assert not memory.fits("another", 1)
    memory.set(300)
    await waiting
    memory.release("somebody", "streams", 60)
    assert memory.free == 300


async def test_a_gateway_takes_all_that_may_change(node: StandIn) -> None:
    """While it runs."""
    async with app.running(settings(node.rpc_file, receive=False)) as gateway:
        await gateway.ready()
        changed: dict[str, Any] = {"log_calls": "none", "peer_burst": 9.0, "memory_budget_mb": 99}
        gateway.reload(settings(node.rpc_file, receive=False, rune_check_interval=0.0, **changed))
