"""Limits that SIGHUP changes hold for what is already running."""

from __future__ import annotations

import pytest

from custommsg_server import app
from custommsg_server.access.callers import CallerLimits, Callers
from custommsg_server.core.limits import Limits, PeerLimits
from custommsg_server.domain.errors import RelayError
from custommsg_server.settings import RELOADABLE, Settings
from support.gateways import settings
from support.keys import node_id
from support.standin import StandIn


def test_what_may_be_changed_is_a_setting() -> None:
    """A name that is none would never change."""
    assert set(Settings.model_fields) > RELOADABLE


def test_a_peers_limits_change_for_what_is_sent_next() -> None:
    """What was sent before stays on its account."""
    limits = PeerLimits(Limits(messages_per_s=1, burst=0), clock=lambda: 0.0)
    limits.take_now(node_id(), 10)
    with pytest.raises(RelayError):
        limits.take_now(node_id(), 10)
    limits.set(Limits(messages_per_s=1, burst=10))
    limits.take_now(node_id(), 10)


def test_a_callers_limits_change_for_its_next_call() -> None:
    """Its calls that run go on."""
    callers = Callers(CallerLimits(calls=1))
    callers.begin("somebody")
    with pytest.raises(RelayError):
        callers.begin("somebody")
    callers.set(CallerLimits(calls=2))
    callers.begin("somebody")


async def test_a_gateway_takes_all_that_may_change(node: StandIn) -> None:
    """While it serves."""
    async with app.running(settings(node.rpc_file, receive=False)) as gateway:
        await gateway.ready()
        gateway.reload(settings(node.rpc_file, receive=False, log_calls="none", peer_burst=9.0))
