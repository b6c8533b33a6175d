"""Properties of the one function that turns an RPC's failure into an exception: no network needed."""

from __future__ import annotations

import grpc
import grpc.aio
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

import custommsg
from custommsg._status import from_result, from_rpc
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import status_details

codes = st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
REFUSED_UNREAD = {
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
}
TYPE_URLS = [
    "type.googleapis.com/google.rpc.ErrorInfo",
    "type.googleapis.com/google.rpc.RetryInfo",
    "type.googleapis.com/google.rpc.BadRequest",
    "nonsense",
    "",
]


def failure(code: grpc.StatusCode, details: bytes | None, text: str | None = "No.") -> grpc.aio.AioRpcError:
    trailing = [] if details is None else [("grpc-status-details-bin", details)]
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), text)


@given(code=codes, details=st.binary(), text=st.none() | st.text(), sends=st.booleans())
def test_any_bytes_as_details_make_a_typed_error(
    code: grpc.StatusCode, details: bytes, text: str | None, sends: bool
) -> None:
    """Whatever is in the details, the caller gets a typed error with the code of the call."""
    error = from_rpc(failure(code, details, text), sends=sends)
    assert error.code is code
    assert str(error)


@given(
    code=codes,
    details=st.lists(st.tuples(st.sampled_from(TYPE_URLS), st.binary())),
    same_code=st.booleans(),
)
def test_any_bytes_as_one_detail_make_a_typed_error(
    code: grpc.StatusCode, details: list[tuple[str, bytes]], same_code: bool
) -> None:
    """A readable status may have details that are not."""
    status = status_pb2.Status(code=code.value[0] if same_code else 77)
    for type_url, value in details:
        status.details.add(type_url=type_url, value=value)
    error = from_rpc(failure(code, status.SerializeToString()), sends=True)
    assert error.code is code
    assert error.retry_after is None or error.retry_after >= 0


@given(code=codes, details=st.none() | st.binary(max_size=8), text=st.text())
def test_without_proof_a_send_has_an_unknown_outcome(
    code: grpc.StatusCode, details: bytes | None, text: str
) -> None:
    """Neither an unknown text of gRPC's nor bytes that are not a status make a send safe to repeat."""
    error = from_rpc(failure(code, details, f"no {text}"), sends=True)
    assert isinstance(error, custommsg.OutcomeUnknown) or code in REFUSED_UNREAD


@given(code=codes, reason=st.text(min_size=1), retry_after=st.none() | st.floats(0, 1e6))
def test_a_call_that_cannot_send_never_has_an_unknown_outcome(
    code: grpc.StatusCode, reason: str, retry_after: float | None
) -> None:
    """Whatever the gateway says, a check or a listing has sent nothing."""
    for details in (None, status_details(code, reason, retry_after=retry_after)):
        assert not isinstance(from_rpc(failure(code, details), sends=False), custommsg.OutcomeUnknown)


@given(
    code=codes,
    reason=st.sampled_from(list(custommsg.Reason)),
    domain=st.text().filter(lambda d: d != "custommsg"),
)
def test_reasons_of_another_domain_are_not_ours(
    code: grpc.StatusCode, reason: custommsg.Reason, domain: str
) -> None:
    """A proxy's "OVERLOADED, come back in a second" says nothing about what the gateway did."""
    details = status_details(code, reason.name, domain=domain, retry_after=1)
    error = from_rpc(failure(code, details), sends=True)
    assert error.retry_after is None
    assert isinstance(error, custommsg.OutcomeUnknown) or code in REFUSED_UNREAD


def test_details_that_contradict_the_code_are_ignored() -> None:
    """They belong to another failure."""
    details = status_details(grpc.StatusCode.UNAVAILABLE, "NODE_UNAVAILABLE", retry_after=1)
    error = from_rpc(failure(grpc.StatusCode.INTERNAL, details), sends=True)
    assert isinstance(error, custommsg.OutcomeUnknown)


def test_a_result_without_details_is_read_by_its_reason() -> None:
    """The reason of a stream's result says the same as ErrorInfo; a number of a newer gateway says nothing."""
    error = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="Connect it first.")
    known = from_result(pb.SendResult(error=error, reason=pb.REASON_PEER_NOT_CONNECTED))
    assert (type(known), known.message) == (custommsg.PeerNotConnected, "Connect it first.")
    assert known.reason is custommsg.Reason.PEER_NOT_CONNECTED
    unknown = from_result(pb.SendResult(error=error, reason=999))  # type: ignore[arg-type]
    assert isinstance(unknown, custommsg.OutcomeUnknown)


@given(
    reason=st.integers(0, 100) | st.sampled_from(sorted(pb.Reason.values())),
    code=st.integers(0, 20),
    details=st.none() | st.sampled_from(list(custommsg.Reason)),
)
def test_any_result_that_failed_makes_a_typed_error(
    reason: int, code: int, details: custommsg.Reason | None
) -> None:
    """Whatever number and code it has; details count more than the number."""
    status = status_pb2.Status(code=code, message="No.")
    if details is not None:
        detailed = status_pb2.Status.FromString(status_details(grpc.StatusCode.INTERNAL, details.name))
        status.details.extend(detailed.details)
    error = from_result(pb.SendResult(error=status, reason=reason))  # type: ignore[arg-type]
    if details is not None:
        assert error.reason is details
    elif reason in pb.Reason.values() and reason:
        assert pb.Reason.Name(reason) == f"REASON_{error.reason}"  # type: ignore[arg-type]
