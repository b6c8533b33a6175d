"""Why a request failed, independent of gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique


@unique
class Reason(Enum):
    """Why a request failed. The names are part of the contract: callers compare them."""

    INVALID_NODE_ID = "INVALID_NODE_ID"
    """A node id is not 33 bytes, not a point on secp256k1, or not hex."""
    INVALID_MESSAGE = "INVALID_MESSAGE"
    """The message has fewer than 2 or more than 65,535 bytes, is not hex, or is missing."""
    INTERNAL_MESSAGE_TYPE = "INTERNAL_MESSAGE_TYPE"
    """The node handles messages of this type itself. Metadata: type, name."""
    PEER_UNKNOWN = "PEER_UNKNOWN"
    """The node does not know this peer."""
    PEER_NOT_CONNECTED = "PEER_NOT_CONNECTED"
    """The node knows the peer, but is not connected to it."""
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    """The node cannot be reached; nothing was sent."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """The connection broke, or the deadline passed, after the request was written: it may have been sent."""
    NOT_SENT = "NOT_SENT"
    """The deadline passed before the request was written to the node; nothing was sent."""
    NODE_ERROR = "NODE_ERROR"
    """The node returned an error that the gateway does not know. Metadata: code."""
    OVERLOADED = "OVERLOADED"
    """A limit was reached; nothing was sent. Metadata: limit."""
    POSITION_EXPIRED = "POSITION_EXPIRED"
    """The retention has deleted events after this position. Metadata: earliest."""
    POSITION_OF_OTHER_INBOX = "POSITION_OF_OTHER_INBOX"
    """The position belongs to another inbox: this gateway has a new one."""
    POSITION_NOT_REACHED = "POSITION_NOT_REACHED"
    """The position is after the newest event of this inbox. Metadata: latest."""
    INVALID_POSITION = "INVALID_POSITION"
    """The text is not a position."""
    INBOX_UNAVAILABLE = "INBOX_UNAVAILABLE"
    """The inbox cannot be read or written now."""
    INVALID_FILTER = "INVALID_FILTER"
    """A filter has an invalid type range, or too many entries."""
    INVALID_CONSUMER = "INVALID_CONSUMER"
    """The consumer's name is not 1 to 100 characters of A-Z a-z 0-9 . _ -"""
    CONSUMER_UNKNOWN = "CONSUMER_UNKNOWN"
    """There is no consumer of this name."""
    NO_CREDENTIAL = "NO_CREDENTIAL"
    """The call has neither a rune nor a client certificate, or the rune is not valid."""
    NOT_PERMITTED = "NOT_PERMITTED"
    """The credential does not permit this; nothing was sent."""
    GATEWAY_STOPPING = "GATEWAY_STOPPING"
    """The gateway is stopping and ends its streams."""
    NODE_UNKNOWN = "NODE_UNKNOWN"
    """The gateway does not serve the node that the request names in `node_id`."""
    INVALID_PAGE = "INVALID_PAGE"
    """The page size is negative, or the page token is not from an earlier page."""
    OUTBOX_FULL = "OUTBOX_FULL"
    """The caller has too much waiting in the outbox; nothing was enqueued. Metadata: limit."""
    OUTBOX_UNAVAILABLE = "OUTBOX_UNAVAILABLE"
    """The outbox cannot be read or written now."""
    ENTRY_UNKNOWN = "ENTRY_UNKNOWN"
    """The outbox has no such entry, or no longer."""
    ENTRY_NOT_WAITING = "ENTRY_NOT_WAITING"
    """The entry cannot be cancelled: it is being sent, or has ended. Metadata: state."""
    INVALID_EXPIRY = "INVALID_EXPIRY"
    """The expiry is in the past, or later than the gateway allows."""
    INVALID_IDEMPOTENCY_KEY = "INVALID_IDEMPOTENCY_KEY"
    """The idempotency key is not 1 to 100 printable ASCII characters without spaces."""
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    """The caller has used this idempotency key before, for another message; nothing was done."""


class UserError(Exception):
    """An error that the user has to correct; the message says what is wrong and what to do."""


class RelayError(Exception):
    """A request failed.

    Args:
        reason: for programs.
        message: for people: what is wrong and what to do. It contains no payload and no credential.
        field: the invalid field of the request ("peer_id", "msg", ...); empty: no field is invalid.
        metadata: details for programs, as documented with the reason.
        retry_after: seconds after which a retry makes sense; None: a retry is not safe, or does not help.
        expired: it failed because the deadline passed.
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
    """Make the error for a deadline that passed before anything was written to the node."""
    return RelayError(
        Reason.NOT_SENT,
        "The deadline passed before the message was written to the node. Nothing was sent."
        " Try again with a longer deadline.",
        expired=True,
        retry_after=0.0,
    )


def overloaded(limit: str, what: str, retry_after: float | None) -> RelayError:
    """Make the error for a limit that was reached.

    Args:
        limit: its name, for programs and metrics.
        what: the limit that was reached, and what to do.
        retry_after: seconds; None: a retry does not help.
    """
    return RelayError(
        Reason.OVERLOADED, f"{what} Nothing was sent.", metadata={"limit": limit}, retry_after=retry_after
    )


def node_unavailable(why: str) -> RelayError:
    """Make the error for a node that cannot be reached, when nothing was written to it."""
    return RelayError(
        Reason.NODE_UNAVAILABLE,
        f"The Lightning node cannot be reached: {why}. Nothing was sent. Try again, and check that lightningd runs.",
        retry_after=1.0,
    )


def no_credential(why: str) -> RelayError:
    """Make the error for a caller without a valid credential."""
    return RelayError(
        Reason.NO_CREDENTIAL,
        f"No valid credential: {why}. Send a rune in the metadata key `rune` (lightning-cli createrune makes one),"
        " or a client certificate where the gateway accepts them.",
    )


def not_permitted(why: str) -> RelayError:
    """Make the error for a use that a rune does not permit.

    Args:
        why: in lightningd's words. It quotes the rune, so it may be any text.
    """
    text = why[:200].encode(errors="surrogateescape").decode(errors="replace")
    return RelayError(Reason.NOT_PERMITTED, f"The rune does not permit this: {text}")
