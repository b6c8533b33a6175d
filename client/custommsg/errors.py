"""The exceptions that a failed call raises, and the reasons that a program can read.

One question decides what a caller may do next: can the message have been sent? Only after `OutcomeUnknown` it can.
Every other exception here means that this call sent nothing.
"""

# ruff: noqa: N818 - the names say what happened, as the contract's reasons do; no suffix "Error" is needed.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


@unique
class Reason(StrEnum):
    """Why a call failed: the names of `Reason` in custommsg.proto, without the prefix REASON_."""

    INVALID_NODE_ID = "INVALID_NODE_ID"
    """A node id is not 33 bytes, not a point on secp256k1, or not hex."""
    INVALID_MESSAGE = "INVALID_MESSAGE"
    """The message has fewer than 2 or more than 65,535 bytes, is not hex, or is missing."""
    INTERNAL_MESSAGE_TYPE = "INTERNAL_MESSAGE_TYPE"
    """The node handles messages of this type itself. Metadata: type, name."""
    PEER_UNKNOWN = "PEER_UNKNOWN"
    """The node does not know this peer."""
    PEER_NOT_CONNECTED = "PEER_NOT_CONNECTED"
    """The node knows the peer and is not connected to it."""
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    """The gateway cannot reach the node; nothing was sent."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """The connection broke, or the deadline passed, when the message may have been sent already."""
    NOT_SENT = "NOT_SENT"
    """The deadline passed, or the gateway could not be reached, before anything was sent."""
    NODE_ERROR = "NODE_ERROR"
    """The node answered with an error that the gateway does not know. Metadata: code."""
    OVERLOADED = "OVERLOADED"
    """A limit was reached; nothing was sent. Metadata: limit."""
    POSITION_EXPIRED = "POSITION_EXPIRED"
    """Events after the position were deleted by the retention. Metadata: earliest."""
    POSITION_OF_OTHER_INBOX = "POSITION_OF_OTHER_INBOX"
    """The position belongs to another inbox: the gateway has a new one."""
    POSITION_NOT_REACHED = "POSITION_NOT_REACHED"
    """The position is after the newest event of this inbox. Metadata: latest."""
    INVALID_POSITION = "INVALID_POSITION"
    """The text is not a position."""
    INBOX_UNAVAILABLE = "INBOX_UNAVAILABLE"
    """The inbox cannot be read or written now."""
    INVALID_FILTER = "INVALID_FILTER"
    """A filter has an invalid type range, too many entries, or an empty list."""
    INVALID_CONSUMER = "INVALID_CONSUMER"
    """A consumer's name is not 1 to 100 of A-Z a-z 0-9 . _ -"""
    CONSUMER_UNKNOWN = "CONSUMER_UNKNOWN"
    """There is no consumer of this name."""
    NO_CREDENTIAL = "NO_CREDENTIAL"
    """The call has no rune and no client certificate, or the rune is not valid."""
    NOT_PERMITTED = "NOT_PERMITTED"
    """The rune or the certificate does not permit this; nothing was sent."""
    GATEWAY_STOPPING = "GATEWAY_STOPPING"
    """The gateway is stopping and ends its streams."""
    NODE_UNKNOWN = "NODE_UNKNOWN"
    """The gateway does not serve the node that the request names in `node_id`."""
    INVALID_PAGE = "INVALID_PAGE"
    """The page size is invalid, or the page token is not from an earlier page."""
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


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of the request (google.rpc.BadRequest)."""

    field: str
    """The field's name in custommsg.proto, e.g. "peer_id"."""
    description: str
    """What is wrong with it, for people."""


class CustomMsgError(Exception):
    """A call failed. Nothing was sent, unless this is an `OutcomeUnknown`.

    It is raised itself, and not one of its subclasses, for a reason that has no class of its own.

    Attributes:
        reason: a `Reason`; or text: a reason of a newer gateway that this version does not know, or the name of
            the gRPC code if the call was refused before it reached the gateway.
        code: the gRPC status code.
        message: what went wrong and what to do next, for people.
        metadata: more for programs, as documented with the reason.
        retry_after: seconds after which a retry is worth it, if the gateway said so.
        violations: the fields of the request that are wrong.
        detail: what gRPC itself said, if the gateway said nothing; for logs and bug reports.
    """

    def __init__(
        self,
        reason: Reason | str,
        code: grpc.StatusCode,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
        detail: str = "",
    ) -> None:
        super().__init__(reason, code, message)
        self.reason = reason
        self.code = code
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = violations
        self.detail = detail

    def __str__(self) -> str:
        detail = f" (gRPC says: {self.detail})" if self.detail else ""
        return f"{self.reason}: {self.message}{detail}"


class InvalidRequest(CustomMsgError):
    """The same request can never succeed: INTERNAL_MESSAGE_TYPE and every INVALID_... reason."""


class PeerNotConnected(CustomMsgError):
    """The node is not connected to the peer: PEER_NOT_CONNECTED; or, as `PeerUnknown`, PEER_UNKNOWN."""


class PeerUnknown(PeerNotConnected):
    """The node does not know the peer: PEER_UNKNOWN.

    Core Lightning forgets a peer without a channel as soon as it disconnects.
    """


class NodeUnknown(CustomMsgError):
    """The gateway does not serve the node that the call names in `node_id`: NODE_UNKNOWN. Nothing was sent."""


class NotSent(CustomMsgError):
    """Nothing was sent, and the same call may succeed later. Calls that send nothing raise it, too.

    NODE_UNAVAILABLE, OVERLOADED, NOT_SENT, INBOX_UNAVAILABLE, OUTBOX_FULL, OUTBOX_UNAVAILABLE, GATEWAY_STOPPING.
    """


class NotPermitted(CustomMsgError):
    """The credential is missing, not valid or not enough: NO_CREDENTIAL, NOT_PERMITTED. Nothing was sent."""


class PositionError(CustomMsgError):
    """A subscription or a listing cannot start or go on at its position; the subclass says why.

    Events would be missed, so a subscription does not go on by itself.

    Attributes:
        position: the position at fault, if it is known.
    """

    position: str | None = None


class PositionExpired(PositionError):
    """Events after the position were deleted by the retention: POSITION_EXPIRED.

    To accept the loss and go on with what is kept, subscribe with `after=error.earliest`; a named consumer, too.
    """

    @property
    def earliest(self) -> str | None:
        """The position before the oldest event that is kept, if the gateway said so."""
        return self.metadata.get("earliest")


class PositionOfOtherInbox(PositionError):
    """The position belongs to another inbox: POSITION_OF_OTHER_INBOX.

    The gateway has a new inbox, for example because its files were deleted. Events of the old one are lost. To go
    on, subscribe without `after`, or with `from_beginning=True`.
    """


class PositionNotReached(PositionError):
    """The position is after the newest event of this inbox: POSITION_NOT_REACHED.

    The inbox lost its newest events, for example because an older copy of it was restored.
    """

    @property
    def latest(self) -> str | None:
        """The position of the newest event, if the gateway said so."""
        return self.metadata.get("latest")


class ConsumerUnknown(CustomMsgError):
    """There is no consumer of this name: CONSUMER_UNKNOWN."""


class EntryUnknown(CustomMsgError):
    """The outbox has no such entry, or no longer: ENTRY_UNKNOWN."""


class EntryNotWaiting(CustomMsgError):
    """The entry cannot be cancelled, because it is being sent or has ended: ENTRY_NOT_WAITING."""

    @property
    def state(self) -> str | None:
        """The state of the entry, if the gateway said so."""
        return self.metadata.get("state")


class IdempotencyKeyReused(CustomMsgError):
    """The idempotency key was used before, for another message: IDEMPOTENCY_KEY_REUSED. Nothing was done."""


class NodeError(CustomMsgError):
    """The node answered with an error that the gateway does not know: NODE_ERROR. Nothing was sent."""


class OutcomeUnknown(CustomMsgError):
    """The message may or may not have been sent: OUTCOME_UNKNOWN.

    The client did not retry. Before sending again, ask the peer; or send again if receiving it twice does no harm.
    """
