"""Where a subscription is, without I/O: what to ask the gateway for, and what of its responses to yield.

One cursor outlives the connections of its subscription. Its position moves over what was yielded and over what did
not pass the filter. The next connection asks for what comes after it. So no event is yielded twice, and none is
skipped. Positions are opaque: they are kept and sent back, and never ordered.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from datetime import UTC

import grpc

from custommsg._core import outbox_state, reason_name
from custommsg.errors import CustomMsgError, PositionError
from custommsg.events import (
    Event,
    Interruption,
    Message,
    OutboxEntryEnded,
    PeerConnected,
    PeerDisconnected,
)
from custommsg.v1 import custommsg_pb2 as pb

_log = logging.getLogger("custommsg")


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement to send."""

    position: str
    """Everything up to it is dealt with."""
    yielded: int
    """How many of the events that the subscription yielded it is known to cover."""


class Cursor:
    """The position of one subscription.

    Args:
        request: what to ask for at first.
        interruptions: whether to yield interruptions.
    """

    def __init__(self, request: pb.SubscribeCustomMsgsRequest, *, interruptions: bool) -> None:
        self._request = request
        self._reader = EventReader(
            peer_events=request.filter.include_peer_events,
            interruptions=interruptions,
            outbox_events=request.filter.include_outbox_events,
        )
        self._pending: deque[pb.Event] = deque()
        self._batch_end = ""
        self._yielded = 0  # how many events
        self._last: str | None = None  # the position of the last of them
        self._covered = 0  # how many of them are acknowledged
        self._stored: str | None = (
            None  # the position that the gateway has for the consumer, as far as we know
        )
        self.position: str | None = None
        """Everything up to it was yielded or did not pass the filter; None until the first response."""

    @property
    def consumer(self) -> str:
        """The name under which the gateway stores the position; empty if there is none."""
        return self._request.consumer

    def request(self) -> pb.SubscribeCustomMsgsRequest:
        """Return what to ask a new connection for.

        After the first connection it is always what comes after the position: for a subscription that started with
        new events, too, since it must not miss what arrives between two connections; and for a consumer, whose
        acknowledged position may lag behind what was yielded.
        """
        if self.position is not None:
            self._request.after = self.position
        # What the last connection sent and was not yielded comes again on this one.
        self._pending.clear()
        self._batch_end = ""
        return self._request

    def registered(self, response: pb.SubscribeCustomMsgsResponse) -> None:
        """Take the first response of a connection: it says where the subscription starts.

        Raises:
            CustomMsgError: it does not say that. Then a connection lost before the first event would lose events.
        """
        if response.events or not response.position:
            code = grpc.StatusCode.INTERNAL
            message = (
                "The first response of the subscription is not a position without events, as the contract has it. Is"
                " this a custommsg gateway, and is it as new as this client?"
            )
            raise CustomMsgError(code.name, code, message)
        if self.position is None:
            self._stored = response.position
        self.position = self._batch_end = response.position

    def take(self, response: pb.SubscribeCustomMsgsResponse) -> None:
        """Take any later response."""
        self._pending.extend(response.events)
        self._batch_end = response.position

    def next(self) -> Event | None:
        """Return the next event to yield; None if more has to be read from the gateway."""
        while self._pending:
            raw = self._pending.popleft()
            self.position = raw.position
            event = self._reader.read(raw)
            if event is not None:
                self._yielded += 1
                self._last = raw.position
                return event
        if self._batch_end:
            self.position = self._batch_end
        return None

    def ack(self, event: Event | None) -> Ack:
        """Return the acknowledgement of an event, or of everything that was yielded.

        Raises:
            ValueError: there is no consumer, or no position yet.
        """
        position = event.position if event is not None else self.position
        if not self.consumer or position is None:
            raise ValueError("nothing to acknowledge: give consumer= to subscribe, and start it first")
        covers_all = event is None or position == self._last
        return Ack(position, self._yielded if covers_all else 0)

    def idle_ack(self) -> Ack | None:
        """Return what to acknowledge without the caller; None if an event that was yielded waits for its ack.

        Without this, the position of a consumer whose filter rarely lets something pass would expire.
        """
        if not self.consumer or self.position is None or self._covered < self._yielded:
            return None
        return Ack(self.position, self._yielded) if self.position != self._stored else None

    def acked(self, ack: Ack) -> None:
        """Note that the gateway has stored an acknowledgement."""
        self._covered = max(self._covered, ack.yielded)
        self._stored = ack.position

    def explain(self, failure: CustomMsgError) -> CustomMsgError:
        """Add the position to a failure that is about it."""
        if isinstance(failure, PositionError):
            asked = self._request.after if self._request.HasField("after") else None
            failure.position = self.position if self.position is not None else asked
        return failure


class EventReader:
    """Converts events of the contract, and leaves out those that are not wanted.

    Args:
        peer_events: whether connects and disconnects are wanted.
        interruptions: whether interruptions are wanted; those that are not are logged as warnings.
        outbox_events: whether endings of entries of the outbox are wanted.
    """

    def __init__(self, *, peer_events: bool, interruptions: bool, outbox_events: bool = False) -> None:
        self._peer_events = peer_events
        self._outbox_events = outbox_events
        self._interruptions = interruptions

    def read(self, raw: pb.Event) -> Event | None:
        """Convert an event; None if it is not wanted, or of a kind that this version does not know."""
        event = read_event(raw)
        if isinstance(event, Message):
            return event
        if event is None:
            _log.warning(
                "Left out event %s: this version of custommsg does not know its kind. A newer one may.",
                raw.position,
            )
        elif isinstance(event, Interruption) and not self._interruptions:
            _log.warning("%s", event)
            return None
        elif (isinstance(event, PeerConnected | PeerDisconnected) and not self._peer_events) or (
            isinstance(event, OutboxEntryEnded) and not self._outbox_events
        ):
            return None
        return event


def read_event(raw: pb.Event) -> Event | None:
    """Convert an event of the contract; None if its kind is not known here."""
    position, node_id, peer_id = raw.position, raw.node_id, raw.peer_id
    time = raw.time.ToDatetime(tzinfo=UTC)
    match raw.WhichOneof("kind"):
        case "message":
            return Message(position, time, node_id, peer_id, raw.message.type, raw.message.payload)
        case "peer_connected":
            return PeerConnected(position, time, node_id, peer_id)
        case "peer_disconnected":
            return PeerDisconnected(position, time, node_id, peer_id)
        case "interruption":
            return Interruption(position, time, node_id, peer_id, raw.interruption.lost)
        case "outbox_entry_ended":
            ended = raw.outbox_entry_ended
            state, reason = outbox_state(ended.state), reason_name(ended.reason)
            key = ended.idempotency_key
            return OutboxEntryEnded(
                position, time, node_id, peer_id, ended.entry_id, key, state, reason, ended.type
            )
    return None
