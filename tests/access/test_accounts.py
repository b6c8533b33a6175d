"""The limits of each caller."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access.accounts import Accounts, CallerAccount, CallerLimits
from custommsg_server.core.limits import Rate
from custommsg_server.domain.errors import Reason, RelayError
from support.every_rpc import Certificates, until_serving
from support.gateways import gateway
from support.keys import node_id
from support.standin import StandIn

NOW = 1000.0


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def reason_of(error: pytest.ExceptionInfo[RelayError]) -> tuple[Reason, str]:
    """Return the reason and the limit."""
    return error.value.reason, error.value.metadata.get("limit", "")


def test_calls_at_once_are_bounded_by_caller() -> None:
    """One caller with many calls does not block another; finished calls do not count."""
    callers = Accounts(CallerLimits(calls=2))
    callers.begin("a")
    callers.begin("a")
    with pytest.raises(RelayError) as refused:
        callers.begin("a")
    assert reason_of(refused) == (Reason.OVERLOADED, "caller_calls")
    callers.begin("b")
    callers.end("a")
    callers.begin("a")


def test_rates_are_bounded_by_caller() -> None:
    """Messages and bytes; OVERLOADED has the time to wait."""
    clock = Clock()
    accounts = Accounts(CallerLimits(rate=Rate(messages_per_s=8, bytes_per_s=1000, burst=1.0)), clock)
    a, b = CallerAccount(accounts, "a", "a"), CallerAccount(accounts, "b", "b")
    for _ in range(9):
        a.take(1, 1)
    with pytest.raises(RelayError) as refused:
        a.take(1, 1)
    assert reason_of(refused) == (Reason.OVERLOADED, "caller_rate")
    assert refused.value.retry_after == pytest.approx(1 / 8)
    b.take(1, 5000)
    assert b.reserve(1, 1) == pytest.approx(4.0)
    clock.now += 0.2
    a.take(1, 1)


async def test_a_caller_beyond_its_rate_is_told_when_to_come_back(node: StandIn, tmp_path: Path) -> None:
    """Counted by the name in its certificate."""
    certificates = Certificates(tmp_path)
    settings = certificates.settings(True) | {"require": "client-cert", "caller_messages_per_s": 1.0}
    async with (
        gateway(node.rpc_file, receive=False, insecure=False, **settings) as address,
        grpc.aio.secure_channel(address, certificates.client("right")) as channel,
    ):
        await until_serving(channel)
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        request = pb.SendCustomMsgRequest(message=pb.OutboundMsg(peer_id=node_id(), msg_hex="9c4101"))
        codes = set()
        for _ in range(4):
            try:
                await stub.SendCustomMsg(request)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(node.sent()) == 2
