"""Where a subscription is, without I/O: what to ask for next, and what of an answer is new.

One cursor outlives the connections of its subscription. Its position moves over what was yielded and over
what the gateway says was filtered out, never back: so nothing is yielded twice, however often the gateway
sends it, and the next connection starts where the last one stopped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from datetime import UTC
from typing import Final

import grpc

from custommsg.errors import CustomMsgError, PositionExpired
from custommsg.events import Event, Interruption, Message, PeerConnected, PeerDisconnected
from custommsg.v1 import custommsg_pb2 as pb

POSITION_KEY: Final = "custommsg-position"
INBOX_KEY: Final = "custommsg-inbox-id"

_log = logging.getLogger("custommsg")


class Cursor:
    """The position of one subscription.

    Args:
        request: what to ask for at first.
        interruptions: whether interruptions are wanted among the events.
    """

    def __init__(self, request: pb.SubscribeCustomMsgsRequest, *, interruptions: bool) -> None:
        self._request = request
        self._interruptions = interruptions
        self._pending: deque[pb.Event] = deque()
        self._batch_end = 0
        self._yielded = -1
        self._acked = -1
        self.position: int | None = None
        """The sequence number up to which all was yielded or not asked for; None until it is registered."""

    @property
    def consumer(self) -> str:
        """The name under which the gateway keeps the position; empty if under none."""
        return self._request.consumer

    @property
    def inbox_id(self) -> str:
        """The inbox that the position belongs to; empty if that is not known yet."""
        return self._request.inbox_id

    def request(self) -> pb.SubscribeCustomMsgsRequest:
        """Return what to ask for now.

        Once registered, always to go on after the position, even if the subscription began live: else what
        comes between two connections were lost. A gateway that keeps the position of a consumer goes on
        after what was acknowledged instead; what was yielded beyond that is left out here.
        """
        if self.position is not None:
            self._request.after = self.position
        return self._request

    def registered(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Take the initial metadata of a connection; return whether it says where the stream starts."""
        told = dict(metadata)
        position, inbox_id = told.get(POSITION_KEY), told.get(INBOX_KEY)
        if not isinstance(position, str) or not (position.isascii() and position.isdecimal()):
            return False
        if isinstance(inbox_id, str):
            self._request.inbox_id = inbox_id
        if self.position is None:
            self.position = int(position)
        self.acked(int(position))  # where the gateway starts a consumer is where it has it
        return True

    def take(self, response: pb.SubscribeCustomMsgsResponse) -> None:
        """Take what the gateway sent."""
        self._pending.extend(response.events)
        self._batch_end = response.position

    def next(self) -> Event | None:
        """Return the next event that is new and wanted; None if the gateway has to be asked for more."""
        while self._pending:
            raw = self._pending.popleft()
            if raw.sequence <= (self.position or 0):
                continue  # a gateway that resumes after what was acknowledged sends again what came after it
            self.position = raw.sequence
            event = read_event(raw)
            if self._is_wanted(event):
                self._yielded = raw.sequence
                return event
        if self.position is not None:
            self.position = max(self.position, self._batch_end)
        return None

    def acked(self, position: int) -> None:
        """Note that the gateway has the position of the consumer at this sequence number."""
        self._acked = max(self._acked, position)

    def idle_ack(self) -> int | None:
        """Return what can be acknowledged without the caller, as nothing that was yielded waits for its ack.

        Else a consumer with a narrow filter would seem to stand still, until its position has expired.
        """
        if not self.consumer or self.position is None or self._acked < self._yielded:
            return None
        return self.position if self.position > self._acked else None

    def explain(self, failure: CustomMsgError) -> CustomMsgError:
        """Add to a failure what only the subscription knows: its position."""
        if isinstance(failure, PositionExpired):
            asked = self._request.after if self._request.HasField("after") else None
            failure.position = self.position if self.position is not None else asked
        return failure

    def _is_wanted(self, event: Event | None) -> bool:
        if event is None:
            _log.warning(
                "Left out event %s, of a kind that this version of custommsg does not know.", self.position
            )
        elif isinstance(event, Interruption) and not self._interruptions:
            _log.warning(
                "Messages from before event %s may be missing: the gateway was away, or could not store; %s.",
                event.sequence,
                f"{event.lost} are known to be lost" if event.lost else "how many is not known",
            )
            return False
        elif isinstance(event, PeerConnected | PeerDisconnected):
            return self._request.include_peer_events
        return event is not None


def read_event(raw: pb.Event) -> Event | None:
    """Turn an event of the contract into a plain value; None if its kind is not known here."""
    sequence, node_id = raw.sequence, raw.node_id
    time = raw.time.ToDatetime(tzinfo=UTC)
    match raw.WhichOneof("kind"):
        case "message":
            return Message(sequence, time, node_id, raw.message.type, raw.message.payload)
        case "peer_connected":
            return PeerConnected(sequence, time, node_id)
        case "peer_disconnected":
            return PeerDisconnected(sequence, time, node_id)
        case "interruption":
            return Interruption(sequence, time, raw.interruption.lost)
    return None


def no_position() -> CustomMsgError:
    """Make the error for a gateway that does not say where its stream starts.

    Without that, a cut before the first message would lose messages, and nobody would know.
    """
    code = grpc.StatusCode.INTERNAL
    message = f"The stream came without {POSITION_KEY}: does something on the way drop its metadata?"
    return CustomMsgError(code.name, code, message)
