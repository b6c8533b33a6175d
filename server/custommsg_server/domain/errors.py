"""Why a request failed, in words of the domain: no gRPC in here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique


@unique
class Reason(Enum):
    """Why a request failed. The names are part of the contract: callers compare them."""

    INVALID_NODE_ID = "INVALID_NODE_ID"
    """The node id is not 33 bytes, not a point on secp256k1, or not hex."""
    INVALID_MESSAGE = "INVALID_MESSAGE"
    """The message is under 2 or over 65,535 bytes, not hex, or missing."""
    INTERNAL_MESSAGE_TYPE = "INTERNAL_MESSAGE_TYPE"
    """The node handles messages of this type itself. Metadata: type, name."""
    PEER_UNKNOWN = "PEER_UNKNOWN"
    """The node knows no such peer."""
    PEER_NOT_CONNECTED = "PEER_NOT_CONNECTED"
    """The node knows the peer, but is not connected to it."""
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    """The node cannot be reached; nothing was written to it."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """The connection broke, or the deadline passed, after the request was written: it may have been sent."""
    NOT_SENT = "NOT_SENT"
    """The deadline passed before the request was written."""
    NODE_ERROR = "NODE_ERROR"
    """The node answered with an error that the gateway does not know. Metadata: code."""
    OVERLOADED = "OVERLOADED"
    """Too much is in flight, or a limit was reached; nothing was written. Metadata: limit."""
    POSITION_EXPIRED = "POSITION_EXPIRED"
    """Events after this position were deleted by the retention. Metadata: earliest."""
    POSITION_OF_OTHER_INBOX = "POSITION_OF_OTHER_INBOX"
    """The position belongs to another inbox: the gateway has a new one."""
    POSITION_NOT_REACHED = "POSITION_NOT_REACHED"
    """The position is after the newest event of this inbox. Metadata: latest."""
    INVALID_POSITION = "INVALID_POSITION"
    """The text is not a position."""
    INBOX_UNAVAILABLE = "INBOX_UNAVAILABLE"
    """The inbox cannot be read or written now."""
    INVALID_FILTER = "INVALID_FILTER"
    """A filter of a subscription names a range of types that is none."""
    INVALID_CONSUMER = "INVALID_CONSUMER"
    """The name of a consumer is none."""
    CONSUMER_UNKNOWN = "CONSUMER_UNKNOWN"
    """There is no consumer of that name."""
    NO_CREDENTIAL = "NO_CREDENTIAL"
    """The caller has shown no credential, or none that is valid."""
    NOT_PERMITTED = "NOT_PERMITTED"
    """The caller's credential does not permit this."""
    NODE_UNKNOWN = "NODE_UNKNOWN"
    """The gateway does not serve the node that the request names."""
    INVALID_PAGE = "INVALID_PAGE"
    """The page size is negative, or the page token is not from an earlier page."""
    GATEWAY_STOPPING = "GATEWAY_STOPPING"
    """The gateway is stopping and ends its streams."""


class UserError(Exception):
    """Something that a person has to correct; the message says what is wrong and what to do."""


class RelayError(Exception):
    """A request failed, and this is why.

    Args:
        reason: what a program reads.
        message: what a person reads; it says what to do next, and holds no payload and no credential.
        field: the field of the request at fault, if one is ("node_id", "msg", ...).
        metadata: more for the program, as documented with the reason.
        retry_after: seconds after which a retry is worth it, where a retry is safe; None where it is not.
        expired: the reason is that the deadline passed.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        expired: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.expired = expired


def not_sent() -> RelayError:
    """Make the error for a deadline that passed before anything was written."""
    return RelayError(
        Reason.NOT_SENT,
        "The deadline passed before the message was written to the node. Nothing was sent: try again, with more"
        " time.",
        expired=True,
        retry_after=0.0,
    )


def no_credential(why: str) -> RelayError:
    """Make the error for a caller that has not shown who it is."""
    return RelayError(
        Reason.NO_CREDENTIAL,
        f"No valid credential: {why}. Send a rune in the metadata key `rune` (lightning-cli createrune makes one),"
        " or, where the gateway takes them, a client certificate.",
    )
