"""Between the contract's messages about the outbox and the core's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from custommsg.v1 import custommsg_pb2 as pb
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival
from custommsg_server.domain.outbox import Draft, Entry, State, ending_of
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound
from custommsg_server.outbox.port import Enqueued

_STATES: Final[dict[State, pb.OutboxState.ValueType]] = {
    state: pb.OutboxState.Value(f"OUTBOX_STATE_{state.name}") for state in State
}
_BY_NUMBER: Final = {number: state for state, number in _STATES.items()}
_MOST_SECONDS: Final = 10_000 * 365 * 86_400
"""Longer than any setting; so that no arithmetic on what a caller gives overflows."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When messages expire, in seconds."""

    default: float
    maximum: float


def draft_from_proto(
    request: pb.OutboxMsg, outbound: Outbound, key: str, expiry: Expiry, now_ns: int
) -> Draft:
    """Make a draft.

    Args:
        request: the message of the caller.
        outbound: the message and its peer, as they were read from it.
        key: its key, likewise.
        expiry: when messages expire.
        now_ns: the machine's clock, in nanoseconds since 1970.

    Raises:
        RelayError: INVALID_EXPIRY.
    """
    expires_ns = 0
    match request.WhichOneof("expiry"):
        case "ttl":
            lifetime = min(request.ttl.seconds, _MOST_SECONDS) + request.ttl.nanos / 1e9
        case "expire_time":
            time = request.expire_time
            expires_ns = min(time.seconds, _MOST_SECONDS) * 1_000_000_000 + time.nanos
            lifetime = (expires_ns - now_ns) / 1e9
        case _:
            lifetime = expiry.default
    if not 0 < lifetime <= expiry.maximum:
        what = "in the past" if lifetime <= 0 else f"more than {expiry.maximum / 3600:g} hours from now"
        raise RelayError(
            Reason.INVALID_EXPIRY,
            f"The expiry is {what}. The latest one that this gateway allows is {expiry.maximum / 3600:g} hours from now"
            " (setting outbox_max_expiry_hours).",
            field=request.WhichOneof("expiry") or "expiry",
        )
    return Draft(outbound.peer_id, outbound.message, lifetime, key, request.at_least_once, expires_ns)


def enqueued_to_proto(enqueued: Enqueued) -> pb.EnqueueCustomMsgResponse:
    """Convert where a message is in the outbox."""
    return pb.EnqueueCustomMsgResponse(
        entry_id=enqueued.entry_id, state=_STATES[enqueued.state], existed=not enqueued.is_new
    )


def states_from_proto(numbers: list[int]) -> frozenset[State]:
    """Read states.

    Raises:
        RelayError: INVALID_FILTER.
    """
    if any(number not in _BY_NUMBER for number in numbers):
        raise RelayError(
            Reason.INVALID_FILTER,
            "The filter has a state that this gateway does not know. Use the values of OutboxState.",
            field="states",
        )
    return frozenset(_BY_NUMBER[number] for number in numbers)  # type: ignore[index]


def entry_to_proto(entry: Entry, node_id: bytes) -> pb.OutboxEntry:
    """Convert an entry."""
    return pb.OutboxEntry(
        id=entry.id,
        node_id=node_id,
        peer_id=entry.peer_id,
        peer_id_hex=entry.peer_id.hex(),
        message=pb.TypedMsg(type=message_type(entry.message), payload=entry.message[2:]),
        idempotency_key=entry.key,
        state=_STATES[entry.state],
        reason=_reason(entry.reason),
        at_least_once=entry.at_least_once,
        direct=entry.is_direct,
        attempts=entry.attempts,
        caller=entry.caller,
        create_time=_time(entry.created_ns),
        update_time=_time(entry.changed_ns),
        expire_time=_time(entry.expires_ns) if entry.expires_ns else None,
    )


def ended_to_proto(arrival: Arrival) -> pb.OutboxEntryEnded:
    """Convert the event of an entry that has ended; one that is not as it was written has no more than its type."""
    try:
        ending = ending_of(arrival)
    except ValueError:  # a damaged file must not keep subscribers at this place for ever
        return pb.OutboxEntryEnded(type=message_type(arrival.message))
    return pb.OutboxEntryEnded(
        entry_id=ending.entry_id,
        idempotency_key=ending.key,
        state=_STATES[ending.state],
        reason=_reason(ending.reason),
        type=ending.message_type,
    )


def _reason(name: str) -> pb.Reason.ValueType:
    return pb.Reason.Value(f"REASON_{name}") if name in Reason.__members__ else pb.REASON_UNSPECIFIED


def _time(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)
