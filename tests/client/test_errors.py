"""What both clients raise when a call fails."""

from __future__ import annotations

import asyncio
import pickle
import re
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

import custommsg
from custommsg import Reason
from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.domain.errors import Reason as ServerReason
from support.client_gateway import PEER, ScriptedGateway, hang, refuse, refuse_because

Code = grpc.StatusCode
PROTO = Path(__file__).parents[2] / "proto/custommsg/v1/custommsg.proto"

# The one table: reason, code, and what a caller catches.
ERRORS: list[tuple[Reason, grpc.StatusCode, type[custommsg.CustomMsgError]]] = [
    (Reason.INVALID_NODE_ID, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.INVALID_MESSAGE, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.INTERNAL_MESSAGE_TYPE, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.PEER_UNKNOWN, Code.NOT_FOUND, custommsg.PeerUnknown),
    (Reason.PEER_NOT_CONNECTED, Code.FAILED_PRECONDITION, custommsg.PeerNotConnected),
    (Reason.NODE_UNAVAILABLE, Code.UNAVAILABLE, custommsg.NotSent),
    (Reason.OUTCOME_UNKNOWN, Code.UNKNOWN, custommsg.OutcomeUnknown),
    (Reason.OUTCOME_UNKNOWN, Code.DEADLINE_EXCEEDED, custommsg.OutcomeUnknown),
    (Reason.NOT_SENT, Code.DEADLINE_EXCEEDED, custommsg.NotSent),
    (Reason.NODE_ERROR, Code.INTERNAL, custommsg.NodeError),
    (Reason.OVERLOADED, Code.RESOURCE_EXHAUSTED, custommsg.NotSent),
    (Reason.POSITION_EXPIRED, Code.OUT_OF_RANGE, custommsg.PositionExpired),
    (Reason.POSITION_OF_OTHER_INBOX, Code.FAILED_PRECONDITION, custommsg.PositionOfOtherInbox),
    (Reason.POSITION_NOT_REACHED, Code.OUT_OF_RANGE, custommsg.PositionNotReached),
    (Reason.INVALID_POSITION, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.INBOX_UNAVAILABLE, Code.UNAVAILABLE, custommsg.NotSent),
    (Reason.INVALID_FILTER, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.INVALID_CONSUMER, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.CONSUMER_UNKNOWN, Code.NOT_FOUND, custommsg.ConsumerUnknown),
    (Reason.NO_CREDENTIAL, Code.UNAUTHENTICATED, custommsg.NotPermitted),
    (Reason.NOT_PERMITTED, Code.PERMISSION_DENIED, custommsg.NotPermitted),
    (Reason.GATEWAY_STOPPING, Code.UNAVAILABLE, custommsg.NotSent),
    (Reason.NODE_UNKNOWN, Code.NOT_FOUND, custommsg.NodeUnknown),
    (Reason.INVALID_PAGE, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.OUTBOX_FULL, Code.RESOURCE_EXHAUSTED, custommsg.NotSent),
    (Reason.OUTBOX_UNAVAILABLE, Code.UNAVAILABLE, custommsg.NotSent),
    (Reason.ENTRY_UNKNOWN, Code.NOT_FOUND, custommsg.EntryUnknown),
    (Reason.ENTRY_NOT_WAITING, Code.FAILED_PRECONDITION, custommsg.EntryNotWaiting),
    (Reason.INVALID_EXPIRY, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.INVALID_IDEMPOTENCY_KEY, Code.INVALID_ARGUMENT, custommsg.InvalidRequest),
    (Reason.IDEMPOTENCY_KEY_REUSED, Code.ALREADY_EXISTS, custommsg.IdempotencyKeyReused),
]


def test_the_table_is_the_contracts() -> None:
    """The contract's enum has the same reasons in the same order, and its comments the same codes."""
    codes = "|".join(code.name for code in Code)
    rows = []
    for comment, name in re.findall(
        r"((?:^  // .*\n)+)  REASON_(\w+) = [1-9]", PROTO.read_text(), re.MULTILINE
    ):
        rows += [(name, code) for code in re.findall(rf"\b({codes})\b", comment)]
    assert [(reason.name, code.name) for reason, code, _ in ERRORS] == rows
    assert [f"REASON_{reason}" for reason in Reason] == list(pb.Reason.keys())[1:]


def test_the_servers_reasons_are_the_clients() -> None:
    """Client and server each have their own enum."""
    assert {reason.name: reason.value for reason in Reason} == {r.name: r.value for r in ServerReason}


@pytest.mark.parametrize(("reason", "code", "kind"), ERRORS)
async def test_each_reason_raises_its_exception(
    connect: Any,
    gateway: ScriptedGateway,
    reason: Reason,
    code: grpc.StatusCode,
    kind: type[custommsg.CustomMsgError],
) -> None:
    """All that the gateway says about a failure reaches the caller, typed."""
    client = connect(gateway.address, retry=False)
    gateway.script.append(
        refuse_because(
            code,
            reason.name,
            "Do this.",
            metadata={"a": "b"},
            retry_after=1.5,
            violations=[("msg", "too long")],
        )
    )
    with pytest.raises(custommsg.CustomMsgError) as caught:
        await client("send", PEER, msg="9419")
    error = caught.value
    assert type(error) is kind
    assert error.reason is reason
    assert error.code is code
    assert (error.message, str(error)) == ("Do this.", f"{reason}: Do this.")
    assert (error.metadata, error.retry_after) == ({"a": "b"}, 1.5)
    assert error.violations == (custommsg.FieldViolation("msg", "too long"),)


@pytest.mark.parametrize("method", ["peers", "info", "check"])
async def test_a_call_that_sends_nothing_has_no_unknown_outcome(
    client: Any, gateway: ScriptedGateway, method: str
) -> None:
    """Only a send can have sent something: other calls raise NotSent, with the gateway's reason."""
    gateway.script.append(refuse_because(Code.UNKNOWN, "OUTCOME_UNKNOWN"))
    arguments = {"msg": "9419"} if method == "check" else {}
    with pytest.raises(custommsg.NotSent) as caught:
        await client(method, *([PEER] if arguments else []), **arguments)
    assert caught.value.reason is Reason.OUTCOME_UNKNOWN


async def test_a_gateway_that_does_not_listen_means_not_sent(connect: Any, tmp_path: Path) -> None:
    """Where there was no connection, nothing can have been sent."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # taken, but nobody listens
        for address in (f"127.0.0.1:{reserved.getsockname()[1]}", f"unix:{tmp_path}/none.sock"):
            with pytest.raises(custommsg.NotSent, match="cannot be reached") as caught:
                await connect(address)("send", PEER, msg="9419")
            assert (caught.value.reason, caught.value.code) == (Reason.NOT_SENT, Code.UNAVAILABLE)


async def test_a_local_deadline_means_outcome_unknown(client: Any, gateway: ScriptedGateway) -> None:
    """A gateway that was asked and did not answer in time may have sent the message."""
    gateway.script.append(hang)
    with pytest.raises(custommsg.OutcomeUnknown, match="ask the peer") as caught:
        await client("send", PEER, msg="9419", timeout=0.2)
    assert (caught.value.reason, caught.value.code) == (Reason.OUTCOME_UNKNOWN, Code.DEADLINE_EXCEEDED)


async def test_a_local_deadline_of_a_read_is_safe_to_repeat(client: Any, gateway: ScriptedGateway) -> None:
    """A question that was not answered in time can be asked again."""
    gateway.script.append(hang)
    with pytest.raises(custommsg.NotSent, match="safe to try again") as caught:
        await client("info", timeout=0.2)
    assert (caught.value.reason, caught.value.code) == (Reason.NOT_SENT, Code.DEADLINE_EXCEEDED)


async def test_a_connection_lost_during_a_call_means_outcome_unknown(
    client: Any, gateway: ScriptedGateway
) -> None:
    """A gateway that goes away with the request in hand may have sent the message; it is not asked twice."""
    gateway.script.extend([hang, hang])
    call = asyncio.create_task(client("send", PEER, msg="9419"))
    await gateway.asked.wait()
    await gateway.server.stop(None)
    with pytest.raises(custommsg.OutcomeUnknown) as caught:
        await call
    assert caught.value.reason is Reason.OUTCOME_UNKNOWN
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("code", [Code.UNIMPLEMENTED, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED])
async def test_a_call_refused_before_the_gateway_is_a_plain_error(
    client: Any, gateway: ScriptedGateway, code: grpc.StatusCode
) -> None:
    """These codes mean that the gateway did not handle the request; the reason is the code's name."""
    gateway.script.append(refuse(code, "not here"))
    with pytest.raises(custommsg.CustomMsgError, match="not here") as caught:
        await client("send", PEER, msg="9419")
    assert type(caught.value) is custommsg.CustomMsgError
    assert caught.value.reason == code.name


async def test_a_handler_that_crashed_means_outcome_unknown(client: Any, gateway: ScriptedGateway) -> None:
    """A failure about which the gateway says nothing is taken for the worst."""
    gateway.script.append(refuse(Code.UNKNOWN, "Unexpected <class 'ZeroDivisionError'>"))
    with pytest.raises(custommsg.OutcomeUnknown, match="ZeroDivisionError"):
        await client("send", PEER, msg="9419")


async def test_details_that_cannot_be_read_are_ignored(client: Any, gateway: ScriptedGateway) -> None:
    """Then the reason is missing, and nothing else fails."""
    gateway.script.append(refuse(Code.INTERNAL, "broken", b"\xff\xff\xff"))
    with pytest.raises(custommsg.OutcomeUnknown, match="broken"):
        await client("send", PEER, msg="9419")


UNKNOWN_REASONS: list[tuple[grpc.StatusCode, float | None, type[custommsg.CustomMsgError]]] = [
    (Code.INVALID_ARGUMENT, None, custommsg.InvalidRequest),
    (Code.OUT_OF_RANGE, None, custommsg.CustomMsgError),
    (Code.UNAVAILABLE, 1.0, custommsg.NotSent),
    (Code.INTERNAL, None, custommsg.OutcomeUnknown),
]


@pytest.mark.parametrize(("code", "retry_after", "kind"), UNKNOWN_REASONS)
async def test_a_reason_of_a_newer_gateway_stays_readable(
    connect: Any,
    gateway: ScriptedGateway,
    code: grpc.StatusCode,
    retry_after: float | None,
    kind: type[custommsg.CustomMsgError],
) -> None:
    """The reason is kept as text; code and RetryInfo decide whether anything can have been sent."""
    gateway.script.append(refuse_because(code, "MOON_PHASE", retry_after=retry_after))
    with pytest.raises(custommsg.CustomMsgError) as caught:
        await connect(gateway.address, retry=False)("send", PEER, msg="9419")
    assert type(caught.value) is kind
    assert caught.value.reason == "MOON_PHASE"


def test_errors_survive_pickling() -> None:
    """A worker process can hand its error to its parent."""
    error = custommsg.NotSent(
        Reason.OVERLOADED,
        Code.RESOURCE_EXHAUSTED,
        "Slow down.",
        metadata={"limit": "5"},
        retry_after=0.5,
        detail="d",
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_every_position_error_has_one_base() -> None:
    """A program that only wants to start over catches one class."""
    kinds = {kind for reason, _, kind in ERRORS if "POSITION_" in reason}
    assert all(issubclass(kind, custommsg.PositionError) for kind in kinds)
    expired = custommsg.PositionExpired(
        Reason.POSITION_EXPIRED, Code.OUT_OF_RANGE, "No.", metadata={"earliest": "e"}
    )
    early = custommsg.PositionNotReached(
        Reason.POSITION_NOT_REACHED, Code.OUT_OF_RANGE, "No.", metadata={"latest": "l"}
    )
    assert (expired.earliest, early.latest) == ("e", "l")
    assert custommsg.PositionExpired(Reason.POSITION_EXPIRED, Code.OUT_OF_RANGE, "No.").earliest is None
