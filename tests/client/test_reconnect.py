"""Whether and when a subscription connects again: decided without a clock or a network."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import custommsg
from custommsg import Reason
from custommsg._reconnect import Reconnects, can_resume
from custommsg._status import from_rpc
from support.client_gateway import status_details

Code = grpc.StatusCode
FINAL = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
    Code.UNAUTHENTICATED,
}
codes = st.sampled_from([code for code in Code if code is not Code.OK])


def failure(code: grpc.StatusCode, reason: str | None, retry_after: float | None) -> custommsg.CustomMsgError:
    """Make the typed failure of a call that ended with this code and reason."""
    details = status_details(code, reason, retry_after=retry_after) if reason is not None else None
    trailing = [] if details is None else [("grpc-status-details-bin", details)]
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), "No.")
    return from_rpc(error, sends=False)


def cut(retry_after: float | None = None) -> custommsg.NotSent:
    return custommsg.NotSent(Reason.GATEWAY_STOPPING, Code.UNAVAILABLE, "No.", retry_after=retry_after)


def running(jitter: float = 0.0, *, retry: bool = True) -> Reconnects:
    """Make the policy of a subscription that is registered."""
    reconnects = Reconnects(10, retry=retry, jitter=lambda: jitter)
    reconnects.registered()
    return reconnects


RESUMED = [
    ("GATEWAY_STOPPING", Code.UNAVAILABLE),
    ("INBOX_UNAVAILABLE", Code.UNAVAILABLE),
    ("NODE_UNAVAILABLE", Code.UNAVAILABLE),
    ("OVERLOADED", Code.RESOURCE_EXHAUSTED),
    (None, Code.UNAVAILABLE),
    (None, Code.CANCELLED),
    (None, Code.INTERNAL),
    (None, Code.UNKNOWN),
    (None, Code.DEADLINE_EXCEEDED),
]
RAISED = [
    ("POSITION_EXPIRED", Code.OUT_OF_RANGE),
    ("POSITION_OF_OTHER_INBOX", Code.FAILED_PRECONDITION),
    ("POSITION_NOT_REACHED", Code.OUT_OF_RANGE),
    ("INVALID_POSITION", Code.INVALID_ARGUMENT),
    ("NODE_UNKNOWN", Code.NOT_FOUND),
    ("INVALID_FILTER", Code.INVALID_ARGUMENT),
    ("INVALID_CONSUMER", Code.INVALID_ARGUMENT),
    ("INVALID_NODE_ID", Code.INVALID_ARGUMENT),
    ("NO_CREDENTIAL", Code.UNAUTHENTICATED),
    ("NOT_PERMITTED", Code.PERMISSION_DENIED),
    ("NODE_ERROR", Code.INTERNAL),
    (None, Code.UNIMPLEMENTED),
    (None, Code.OUT_OF_RANGE),
]


@pytest.mark.parametrize(("reason", "code"), RESUMED)
def test_what_a_retry_may_help_is_retried(reason: str | None, code: grpc.StatusCode) -> None:
    """A connection that broke, a gateway that stops, a failure without details."""
    assert can_resume(failure(code, reason, None))


@pytest.mark.parametrize(("reason", "code"), RAISED)
def test_what_a_retry_cannot_help_is_not_retried(reason: str | None, code: grpc.StatusCode) -> None:
    """The same request would fail again."""
    assert not can_resume(failure(code, reason, None))


@given(code=codes, reason=st.none() | st.text(min_size=1), retry_after=st.none() | st.floats(0, 1e6))
def test_codes_decide_where_the_gateway_does_not(
    code: grpc.StatusCode, reason: str | None, retry_after: float | None
) -> None:
    """For a newer gateway's reasons, and without a reason, a code that refuses is final unless there is RetryInfo."""
    asked_to = reason is not None and retry_after is not None and reason not in Reason.__members__
    if reason not in Reason.__members__:
        assert can_resume(failure(code, reason, retry_after)) == (asked_to or code not in FINAL)


@given(failures=st.integers(0, 50), retry_after=st.none() | st.floats(0, 1e6), jitter=st.floats(0, 1))
def test_waits_grow_to_a_limit_and_heed_the_gateway(
    failures: int, retry_after: float | None, jitter: float
) -> None:
    """Never in a tight loop, never sooner than asked, never much later than needed."""
    reconnects = running(jitter)
    for _ in range(failures):
        assert reconnects.wait_after(cut()) is not None
    wait = reconnects.wait_after(cut(retry_after))
    assert wait is not None
    assert 0 < wait <= max(retry_after or 0, 5.0) * 1.5
    assert wait >= (retry_after or 0)
    assert reconnects.failures == failures + 1


def test_something_heard_makes_the_next_failure_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Being registered is not enough: a gateway may register a subscription and fail, again and again."""
    monkeypatch.setattr("custommsg._reconnect.FIRST_WAIT", 0.1)
    monkeypatch.setattr("custommsg._reconnect.MAX_WAIT", 5.0)
    reconnects = running()
    assert [reconnects.wait_after(cut()) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    reconnects.registered()
    assert reconnects.wait_after(cut()) == 5.0
    reconnects.heard()
    assert reconnects.wait_after(cut()) == 0.1


def test_until_it_is_registered_it_fails_as_any_call() -> None:
    """There is another attempt only if the gateway asks for it, and only within the timeout."""
    clock = [0.0]
    reconnects = Reconnects(10, retry=True, now=lambda: clock[0], jitter=lambda: 0.0)
    assert reconnects.time_to_register() == 10
    clock[0] = 4.0
    assert reconnects.time_to_register() == 6
    assert reconnects.wait_after(cut()) is None
    assert reconnects.wait_after(cut(2.0)) == 2.0
    assert reconnects.wait_after(cut(60.0)) is None
    reconnects.registered()
    assert reconnects.time_to_register() == 10
    assert reconnects.wait_after(cut(60.0)) == 60.0


def test_who_wants_no_retries_gets_the_first_failure() -> None:
    """The same as for calls."""
    assert running(retry=False).wait_after(cut(0.1)) is None
