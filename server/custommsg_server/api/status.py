"""Turns reasons into statuses.

The details follow https://google.aip.dev/193: ErrorInfo always, BadRequest for a field, RetryInfo where a
retry is safe.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from custommsg_server.domain.errors import Reason, RelayError

DOMAIN: Final = "custommsg"
DETAILS_KEY: Final = "grpc-status-details-bin"

CODES: Final[dict[Reason, grpc.StatusCode]] = {
    Reason.INVALID_NODE_ID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INTERNAL_MESSAGE_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PEER_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.PEER_NOT_CONNECTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NODE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.OUTCOME_UNKNOWN: grpc.StatusCode.UNKNOWN,
    Reason.NOT_SENT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.NODE_ERROR: grpc.StatusCode.INTERNAL,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.POSITION_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.POSITION_OF_OTHER_INBOX: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.POSITION_NOT_REACHED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.INVALID_POSITION: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INBOX_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.INVALID_FILTER: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_CONSUMER: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CONSUMER_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.NO_CREDENTIAL: grpc.StatusCode.UNAUTHENTICATED,
    Reason.NOT_PERMITTED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.GATEWAY_STOPPING: grpc.StatusCode.UNAVAILABLE,
    Reason.NODE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.INVALID_PAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OUTBOX_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OUTBOX_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.ENTRY_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.ENTRY_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.INVALID_EXPIRY: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_IDEMPOTENCY_KEY: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.IDEMPOTENCY_KEY_REUSED: grpc.StatusCode.ALREADY_EXISTS,
}


class RecodedError(RelayError):
    """An error with the code and the text that the clients of a dialect expect; reason and metadata stay."""

    def __init__(self, error: RelayError, code: grpc.StatusCode, message: str) -> None:
        super().__init__(error.reason, message, field=error.field, metadata=error.metadata)
        self.code = code


def code_of(error: RelayError) -> grpc.StatusCode:
    """Return the code of an error, which may differ in a dialect."""
    if isinstance(error, RecodedError):
        return error.code
    return grpc.StatusCode.DEADLINE_EXCEEDED if error.expired else CODES[error.reason]


def status_of(error: RelayError) -> status_pb2.Status:
    """Turn an error into a google.rpc.Status with its details."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=error.metadata)]
    more: list[Any] = []
    if error.field and code_of(error) is grpc.StatusCode.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        more.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        more.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    for detail in (*details, *more):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RelayError) -> None:
    """End a call with an error."""
    details = status_of(error).SerializeToString()
    await context.abort(code_of(error), error.message, trailing_metadata=((DETAILS_KEY, details),))
