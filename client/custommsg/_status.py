"""Turns the failure of an RPC into a typed exception.

The rule: any exception but `OutcomeUnknown` needs proof that nothing was sent. Proof is one of these: the gateway
says so (google.rpc.ErrorInfo of domain "custommsg"); the code means that the request was refused unread; gRPC says
that there was no connection; or the call does not send messages.
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
    EntryNotWaiting,
    EntryUnknown,
    FieldViolation,
    IdempotencyKeyReused,
    InvalidRequest,
    NodeError,
    NodeUnknown,
    NotPermitted,
    NotSent,
    OutcomeUnknown,
    PeerNotConnected,
    PeerUnknown,
    PositionExpired,
    PositionNotReached,
    PositionOfOtherInbox,
    Reason,
)
from custommsg.v1 import custommsg_pb2 as pb

DOMAIN: Final = "custommsg"
"""The gateway's domain in ErrorInfo. Details of another domain, for example a proxy's, are ignored."""

SAFE: Final = "It is safe to try again."
"""What to do after a call that sends nothing has failed."""

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
    Reason.POSITION_OF_OTHER_INBOX: PositionOfOtherInbox,
    Reason.POSITION_NOT_REACHED: PositionNotReached,
    Reason.INVALID_POSITION: InvalidRequest,
    Reason.INBOX_UNAVAILABLE: NotSent,
    Reason.INVALID_FILTER: InvalidRequest,
    Reason.INVALID_CONSUMER: InvalidRequest,
    Reason.CONSUMER_UNKNOWN: ConsumerUnknown,
    Reason.NO_CREDENTIAL: NotPermitted,
    Reason.NOT_PERMITTED: NotPermitted,
    Reason.GATEWAY_STOPPING: NotSent,
    Reason.NODE_UNKNOWN: NodeUnknown,
    Reason.INVALID_PAGE: InvalidRequest,
    Reason.OUTBOX_FULL: NotSent,
    Reason.OUTBOX_UNAVAILABLE: NotSent,
    Reason.ENTRY_UNKNOWN: EntryUnknown,
    Reason.ENTRY_NOT_WAITING: EntryNotWaiting,
    Reason.INVALID_EXPIRY: InvalidRequest,
    Reason.INVALID_IDEMPOTENCY_KEY: InvalidRequest,
    Reason.IDEMPOTENCY_KEY_REUSED: IdempotencyKeyReused,
}

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

# By the number in the contract.
_REASONS: Final = {pb.Reason.Value(f"REASON_{reason.name}"): reason.name for reason in Reason}

# For reasons of a newer gateway: these codes mean that the request was refused, whatever the reason is.
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

# Codes with which gRPC, or a proxy before the gateway, refuses a request without handling it.
_REFUSED_UNREAD: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.UNIMPLEMENTED: (
        "The server at this address does not know the call. Is it a custommsg gateway, and as new as this client?"
    ),
    grpc.StatusCode.UNAUTHENTICATED: "The call needs a credential.",
    grpc.StatusCode.PERMISSION_DENIED: "The call is not permitted.",
}

# gRPC has one code, UNAVAILABLE, for "there was no connection" and for "the connection broke during the call". Only
# its text tells them apart. Any text that is not listed here counts as the second.
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
        sends: whether the call can send a message. If it cannot, the outcome is never unknown.
    """
    code, text = error.code(), error.details() or ""
    return _failure(code, text, _parse_details(error, code), sends=sends)


def from_result(result: pb.SendResult) -> CustomMsgError:
    """Turn the failure of one message on a stream into the exception to raise."""
    status = result.error
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    details = _read_details(status)
    if details is None and result.reason in _REASONS:
        details = _Details(_REASONS[result.reason], {}, None, ())
    return _failure(code, status.message, details, sends=True)


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
    if details.retry_after is not None:  # by the contract, only if nothing was sent
        return NotSent
    return _REFUSALS.get(code, OutcomeUnknown)


def _without_details(code: grpc.StatusCode, text: str, *, sends: bool) -> CustomMsgError:
    """Make the exception for a failure about which the gateway itself said nothing."""
    if code in _REFUSED_UNREAD:
        return CustomMsgError(code.name, code, _REFUSED_UNREAD[code], detail=text)
    if code is grpc.StatusCode.UNAVAILABLE and text.startswith(_NO_CONNECTION):
        message = "The gateway cannot be reached. Is it running, and is the address right?"
        return NotSent(Reason.NOT_SENT, code, message, detail=text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        what, text = "The gateway did not answer within the timeout.", ""
    elif code is grpc.StatusCode.UNAVAILABLE:
        what = "The connection to the gateway was lost."
    else:
        what = f"The call ended without an answer from the gateway ({code.name})."
    if not sends:
        return NotSent(Reason.NOT_SENT, code, f"{what} {SAFE}", detail=text)
    message = f"{what} The message may or may not have been sent: ask the peer before you send it again."
    return OutcomeUnknown(Reason.OUTCOME_UNKNOWN, code, message, detail=text)


def _parse_details(error: grpc.RpcError, code: grpc.StatusCode) -> _Details | None:
    """Read the status details in the trailing metadata; None if the gateway wrote none.

    Details that cannot be decoded, or that contradict the code of the call, are ignored.
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
