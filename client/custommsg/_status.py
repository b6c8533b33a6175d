"""Turns the failure of an RPC into a typed exception.

The rule: an exception other than `OutcomeUnknown` needs proof that nothing was sent. Proof is the gateway's
own word (google.rpc.ErrorInfo of domain "custommsg"), a code that says that the request was refused unread,
gRPC's word that there was no connection to send on, or that the call is none that sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from custommsg.errors import (
    ConsumerUnknown,
    CustomMsgError,
    FieldViolation,
    InvalidRequest,
    NodeError,
    NotPermitted,
    NotSent,
    OutcomeUnknown,
    PeerNotConnected,
    PeerUnknown,
    PositionExpired,
    Reason,
)

DOMAIN: Final = "custommsg"
"""The ErrorInfo domain of the gateway. Another domain's reasons and retry advice are not for us to read."""

_DETAILS_KEY: Final = "grpc-status-details-bin"

_BY_REASON: Final[Mapping[Reason, type[CustomMsgError]]] = {
    Reason.INVALID_NODE_ID: InvalidRequest,
    Reason.INVALID_MESSAGE: InvalidRequest,
    Reason.INTERNAL_MESSAGE_TYPE: InvalidRequest,
    Reason.PEER_UNKNOWN: PeerUnknown,
    Reason.PEER_NOT_CONNECTED: PeerNotConnected,
    Reason.NODE_UNAVAILABLE: NotSent,
    Reason.OUTCOME_UNKNOWN: OutcomeUnknown,
    Reason.NOT_SENT: NotSent,
    Reason.NODE_ERROR: NodeError,
    Reason.OVERLOADED: NotSent,
    Reason.POSITION_EXPIRED: PositionExpired,
    Reason.INBOX_UNAVAILABLE: NotSent,
    Reason.INVALID_CONSUMER: InvalidRequest,
    Reason.CONSUMER_UNKNOWN: ConsumerUnknown,
    Reason.INVALID_FILTER: InvalidRequest,
    Reason.NO_CREDENTIAL: NotPermitted,
    Reason.NOT_PERMITTED: NotPermitted,
    Reason.GATEWAY_STOPPING: NotSent,
}

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

# For reasons of a newer gateway: by their definition these codes refuse a request, whatever the reason.
_REFUSALS: Final[Mapping[grpc.StatusCode, type[CustomMsgError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: CustomMsgError,
    grpc.StatusCode.ALREADY_EXISTS: CustomMsgError,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.FAILED_PRECONDITION: CustomMsgError,
    grpc.StatusCode.OUT_OF_RANGE: CustomMsgError,
    grpc.StatusCode.UNIMPLEMENTED: CustomMsgError,
    grpc.StatusCode.UNAUTHENTICATED: NotPermitted,
}

# Codes that gRPC, or a proxy, gives in front of the gateway, for a request that it does not let pass.
_REFUSED_UNREAD: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.UNIMPLEMENTED: "What listens there does not know the call: no gateway, or an older one",
    grpc.StatusCode.UNAUTHENTICATED: "The call needs a credential",
    grpc.StatusCode.PERMISSION_DENIED: "The call is not permitted",
}

# gRPC has one code, UNAVAILABLE, for "there was no connection" and for "the connection broke during the
# call". Only its text tells them apart. A text that is not listed here counts as the worse of the two.
_NO_CONNECTION: Final = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
    "empty address list",
)


@dataclass(frozen=True, slots=True)
class _Details:
    """What the gateway says about a failure in the details of its status."""

    reason: str
    metadata: Mapping[str, str]
    retry_after: float | None
    violations: tuple[FieldViolation, ...]


def from_rpc(error: grpc.RpcError, *, sends: bool) -> CustomMsgError:
    """Turn the failure of an RPC, of either client, into the exception to raise.

    Args:
        error: what grpc or grpc.aio raised.
        sends: whether the call can send a message. If it cannot, no outcome is unknown: nothing was sent.
    """
    code, text = error.code(), error.details() or ""
    return _failure(code, text, _parse_details(error, code), sends=sends)


def from_status(status: status_pb2.Status) -> CustomMsgError:
    """Turn the status of one message, as a stream's results carry it, into the exception to raise."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _failure(code, status.message, _read_details(status), sends=True)


def _failure(code: grpc.StatusCode, text: str, details: _Details | None, *, sends: bool) -> CustomMsgError:
    if details is None:
        return _without_details(code, text, sends=sends)
    known = details.reason in Reason.__members__
    kind = _BY_REASON[Reason[details.reason]] if known else _of_unknown_reason(code, details)
    if kind is OutcomeUnknown and not sends:
        kind = NotSent
    return kind(
        Reason[details.reason] if known else details.reason,
        code,
        text,
        metadata=details.metadata,
        retry_after=details.retry_after,
        violations=details.violations,
    )


def _of_unknown_reason(code: grpc.StatusCode, details: _Details) -> type[CustomMsgError]:
    if details.retry_after is not None:  # by contract only where nothing was sent
        return NotSent
    return _REFUSALS.get(code, OutcomeUnknown)


def _without_details(code: grpc.StatusCode, text: str, *, sends: bool) -> CustomMsgError:
    """Make the exception for a failure of which the gateway itself has said nothing."""
    if code in _REFUSED_UNREAD:
        return CustomMsgError(code.name, code, f"{_REFUSED_UNREAD[code]}. gRPC says: {text}")
    if code is grpc.StatusCode.UNAVAILABLE and text.startswith(_NO_CONNECTION):
        message = f"The gateway cannot be reached: is it running, and is this its address? gRPC says: {text}"
        return NotSent(Reason.NOT_SENT, code, message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        what = "The gateway did not answer within the timeout."
    else:
        what = f"The call ended without an answer of the gateway ({code.name}: {text})."
    if not sends:
        return NotSent(Reason.NOT_SENT, code, f"{what} It is safe to try again.")
    message = f"{what} The message may have been sent or not: ask the peer before sending it again."
    return OutcomeUnknown(Reason.OUTCOME_UNKNOWN, code, message)


def _parse_details(error: grpc.RpcError, code: grpc.StatusCode) -> _Details | None:
    """Read the status details in the trailing metadata; None if there are none that the gateway wrote.

    They are not taken on trust: what cannot be decoded, or contradicts the code of the call, is left aside.
    """
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    raw = next((value for key, value in trailing if key == _DETAILS_KEY), None)
    status = _decode(status_pb2.Status, raw) if isinstance(raw, bytes) else None
    return _read_details(status) if status is not None and status.code == code.value[0] else None


def _read_details(status: status_pb2.Status) -> _Details | None:
    info, retry, request = (
        _find(status, kind)
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest)
    )
    if info is None or info.domain != DOMAIN or not info.reason:
        return None
    return _Details(
        reason=info.reason,
        metadata=dict(info.metadata),
        retry_after=_seconds(retry) if retry is not None else None,
        violations=tuple(
            FieldViolation(violation.field, violation.description) for violation in request.field_violations
        )
        if request is not None
        else (),
    )


_M = TypeVar("_M", bound=Message)


def _find(status: status_pb2.Status, kind: type[_M]) -> _M | None:
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            return _decode(kind, detail.value)
    return None


def _decode(kind: type[_M], raw: bytes) -> _M | None:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


def _seconds(retry: error_details_pb2.RetryInfo) -> float:
    delay = retry.retry_delay
    return max(0.0, float(delay.seconds) + float(delay.nanos) / 1e9)
