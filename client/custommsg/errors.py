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
    """The request can never succeed as it is: INVALID_NODE_ID, INVALID_MESSAGE, INTERNAL_MESSAGE_TYPE."""


class PeerNotConnected(CustomMsgError):
    """The peer is not there to be sent to: PEER_NOT_CONNECTED, or, as `PeerUnknown`, PEER_UNKNOWN."""


class PeerUnknown(PeerNotConnected):
    """The node knows no such peer: PEER_UNKNOWN.

    Also when a peer has left with whom the node has no channel: Core Lightning forgets it then.
    """


class NotSent(CustomMsgError):
    """Nothing was sent, and the same call may succeed later: NODE_UNAVAILABLE, OVERLOADED, NOT_SENT."""


class NodeError(CustomMsgError):
    """The node refused for a reason that the gateway does not know: NODE_ERROR."""


class OutcomeUnknown(CustomMsgError):
    """The message may have been sent or not: OUTCOME_UNKNOWN.

    Nothing was retried, and nothing should be without asking the peer, unless receiving twice does no harm.
    """
