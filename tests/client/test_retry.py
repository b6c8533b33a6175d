"""When a failed call is tried again: decided without a clock of its own, and seen over a connection."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import custommsg
from custommsg import Reason
from custommsg._retry import MIN_ATTEMPT, MIN_WAIT, Attempts
from support.client_gateway import PEER, ScriptedGateway, queue, refuse_because

Code = grpc.StatusCode


def refused(retry_after: float | None) -> custommsg.NotSent:
    return custommsg.NotSent(Reason.NODE_UNAVAILABLE, Code.UNAVAILABLE, "No.", retry_after=retry_after)


@given(
    timeout=st.floats(0.001, 1e6),
    retry_after=st.floats(0, 1e6),
    passed=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
def test_a_wait_is_what_was_asked_for_and_ends_before_the_deadline(
    timeout: float, retry_after: float, passed: float, jitter: float
) -> None:
    """Never sooner than the gateway asks, never in a tight loop, never without time left for an answer."""
    clock = iter([0.0] + [passed] * 3)
    attempts = Attempts(timeout, retry=True, now=lambda: next(clock), jitter=lambda: jitter)
    wait = attempts.wait_after(refused(retry_after))
    if wait is None:
        assert passed + max(retry_after, MIN_WAIT) * 1.5 + MIN_ATTEMPT > timeout
    else:
        assert wait >= max(retry_after, MIN_WAIT)
        assert wait <= max(retry_after, MIN_WAIT) * 1.5
        assert passed + wait < timeout


@given(st.sampled_from([custommsg.OutcomeUnknown, custommsg.InvalidRequest, custommsg.CustomMsgError]))
def test_only_what_was_not_sent_is_tried_again(kind: type[custommsg.CustomMsgError]) -> None:
    """RetryInfo counts only if the gateway also says that nothing was sent."""
    error = kind(Reason.OUTCOME_UNKNOWN, Code.UNKNOWN, "No.", retry_after=0.0)
    assert Attempts(10, retry=True).wait_after(error) is None
    assert Attempts(10, retry=True).wait_after(refused(None)) is None
    assert Attempts(10, retry=False).wait_after(refused(0.0)) is None


def test_time_left_is_never_below_zero() -> None:
    """A deadline that has passed is a timeout of zero, not a negative one."""
    clock = iter([0.0, 1.0, 5.0])
    attempts = Attempts(2, retry=True, now=lambda: next(clock))
    assert (attempts.time_left(), attempts.time_left()) == (1.0, 0.0)


async def test_a_send_that_was_refused_for_now_is_tried_again(client: Any, gateway: ScriptedGateway) -> None:
    """The caller sees only the success; all attempts share one deadline."""
    later = refuse_because(
        Code.UNAVAILABLE, "NODE_UNAVAILABLE", retry_after=0.1
    )  # more than gRPC rounds a deadline
    gateway.script.extend([later, later, queue])
    assert (await client("send", PEER, msg="9419", timeout=2)).type == 0x9419
    assert len(gateway.requests) == 3
    assert gateway.time_left[0] > gateway.time_left[1] > gateway.time_left[2]


async def test_a_retry_that_would_come_too_late_is_not_waited_for(
    client: Any, gateway: ScriptedGateway
) -> None:
    """The error comes at once, and says when to come back."""
    gateway.script.append(refuse_because(Code.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=60))
    with pytest.raises(custommsg.NotSent) as caught:
        await client("send", PEER, msg="9419", timeout=5)
    assert caught.value.retry_after == 60
    assert len(gateway.requests) == 1


ONCE = [
    ("OUTCOME_UNKNOWN", Code.UNKNOWN, 0.001),
    ("OUTCOME_UNKNOWN", Code.DEADLINE_EXCEEDED, 0.001),
    ("PEER_NOT_CONNECTED", Code.FAILED_PRECONDITION, 0.001),
    ("NODE_UNAVAILABLE", Code.UNAVAILABLE, None),
]


@pytest.mark.parametrize(("reason", "code", "retry_after"), ONCE)
async def test_nothing_else_is_tried_again(
    client: Any, gateway: ScriptedGateway, reason: str, code: grpc.StatusCode, retry_after: float | None
) -> None:
    """Not where the outcome is unknown, not where a retry cannot help, not without the gateway's advice."""
    gateway.script.extend([refuse_because(code, reason, retry_after=retry_after), queue])
    with pytest.raises(custommsg.CustomMsgError):
        await client("send", PEER, msg="9419")
    assert len(gateway.requests) == 1


async def test_retries_can_be_turned_off(connect: Any, gateway: ScriptedGateway) -> None:
    """A program with its own retry policy gets the first error."""
    gateway.script.append(refuse_because(Code.UNAVAILABLE, "NODE_UNAVAILABLE", retry_after=0.001))
    with pytest.raises(custommsg.NotSent):
        await connect(gateway.address, retry=False)("send", PEER, msg="9419")
    assert len(gateway.requests) == 1
