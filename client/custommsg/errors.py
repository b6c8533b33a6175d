"""What a failed call raises, and the reasons a program can read.

One question decides what a caller may do next: can the message have been sent? Only `OutcomeUnknown` says
yes. Every other error here means that this call has sent nothing.
"""

# ruff: noqa: N818 - the names say what happened; where they are caught, that they are errors is plain.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


@unique
class Reason(StrEnum):
    """Why a call failed. The names are the contract's: see the table in custommsg.proto."""

    INVALID_NODE_ID = "INVALID_NODE_ID"
    """The node id is not 33 bytes, not a point on secp256k1, or not hex."""
    INVALID_MESSAGE = "INVALID_MESSAGE"
    """The message is under 2 or over 65,535 bytes, not hex, or of a type over 65,535."""
    INTERNAL_MESSAGE_TYPE = "INTERNAL_MESSAGE_TYPE"
    """The node handles messages of this type itself. Metadata: type, name."""
    PEER_UNKNOWN = "PEER_UNKNOWN"
    """The node knows no such peer."""
    PEER_NOT_CONNECTED = "PEER_NOT_CONNECTED"
    """The node knows the peer, but is not connected to it."""
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    """The gateway cannot reach the node; nothing was sent."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """The connection broke, or the deadline passed, at a time when the message may have been on its way."""
    NOT_SENT = "NOT_SENT"
    """The deadline passed, or the gateway could not be reached, before anything was sent."""
    NODE_ERROR = "NODE_ERROR"
    """The node answered with an error that the gateway does not know. Metadata: code."""
    OVERLOADED = "OVERLOADED"
    """Too much is in flight, or a limit was reached; nothing was sent."""
    POSITION_EXPIRED = "POSITION_EXPIRED"
    """The position is not in the inbox (any more). Metadata: earliest, latest."""
    INBOX_UNAVAILABLE = "INBOX_UNAVAILABLE"
    """The inbox cannot be read or written now."""
    INVALID_CONSUMER = "INVALID_CONSUMER"
    """The name of a consumer is not 1 to 100 of A-Z a-z 0-9 . _ -"""
    CONSUMER_UNKNOWN = "CONSUMER_UNKNOWN"
    """There is no consumer of that name."""
    INVALID_FILTER = "INVALID_FILTER"
    """A filter names a range of types that is none, or nothing at all."""
    NO_CREDENTIAL = "NO_CREDENTIAL"
    """No rune or client certificate was shown, or none that is valid."""
    NOT_PERMITTED = "NOT_PERMITTED"
    """The rune, or the certificate, does not permit this."""
    GATEWAY_STOPPING = "GATEWAY_STOPPING"
    """The gateway is stopping and ends its streams."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of the request (google.rpc.BadRequest)."""

    field: str
    """The field's name in custommsg.proto, e.g. "node_id"."""
    description: str
    """What is wrong with it, for people."""


class CustomMsgError(Exception):
    """A call failed. The message was not sent, unless this is an `OutcomeUnknown`.

    Raised as such, and not as a subclass, where the call was refused for a reason without a class of its own.

    Attributes:
        reason: a `Reason`; or a plain text, if a newer gateway gives a reason that this version does not
            know, or if not the gateway refused but something before it (then it is the code's name).
        code: the gRPC status code.
        message: for people; it says what to do next.
        metadata: more for programs, as documented with the reason.
        retry_after: the seconds after which the gateway finds a retry worth it, where it said so.
        violations: the fields of the request at fault.
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
    ) -> None:
        super().__init__(reason, code, message)
        self.reason = reason
        self.code = code
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = violations

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidRequest(CustomMsgError):
    """The request can never succeed as it is: INTERNAL_MESSAGE_TYPE, and all INVALID_..."""


class PeerNotConnected(CustomMsgError):
    """The peer is not there to be sent to: PEER_NOT_CONNECTED, or, as `PeerUnknown`, PEER_UNKNOWN."""


class PeerUnknown(PeerNotConnected):
    """The node knows no such peer: PEER_UNKNOWN.

    Also when a peer has left with whom the node has no channel: Core Lightning forgets it then.
    """


class NotSent(CustomMsgError):
    """Nothing was sent, and the same call may succeed later, whether it is one that sends or not.

    NODE_UNAVAILABLE, OVERLOADED, NOT_SENT, INBOX_UNAVAILABLE, GATEWAY_STOPPING.
    """


class NotPermitted(CustomMsgError):
    """The caller may not: NO_CREDENTIAL, NOT_PERMITTED. Nothing was sent."""


class PositionExpired(CustomMsgError):
    """What follows the position is not kept any more, or it is a position of another inbox: POSITION_EXPIRED.

    Messages are missed, so the subscription does not go on by itself. To accept that and go on with what is
    kept, subscribe again `from_beginning`; a named consumer first, with `ack(name, error.earliest - 1)`.

    Attributes:
        position: where the subscription stood, if it stood somewhere.
    """

    position: int | None = None

    @property
    def earliest(self) -> int | None:
        """The sequence number of the oldest event that is kept, where the gateway said so."""
        return _sequence(self.metadata.get("earliest"))

    @property
    def latest(self) -> int | None:
        """The sequence number of the newest event, where the gateway said so."""
        return _sequence(self.metadata.get("latest"))


class ConsumerUnknown(CustomMsgError):
    """The gateway knows no consumer of that name: CONSUMER_UNKNOWN."""


class NodeError(CustomMsgError):
    """The node refused for a reason that the gateway does not know: NODE_ERROR."""


class OutcomeUnknown(CustomMsgError):
    """The message may have been sent or not: OUTCOME_UNKNOWN.

    Nothing was retried, and nothing should be without asking the peer, unless receiving twice does no harm.
    """


def _sequence(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
