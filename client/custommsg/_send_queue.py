"""Decides, without I/O, what a sender writes to its stream, and what became of each message.

A message is queued until it is written, then in flight until its result comes. A queued message was not sent. A message
that is in flight when the stream breaks may have been sent, unless the gateway says otherwise.

A refusal that may be retried stops all writing: first everything in flight is answered; then, after the wait that the
gateway asks for, the refused messages are written before the rest. So messages to one peer keep their order. A
refused message is not retried if a later message to the same peer was sent, or may have been. That is rare: after a
refusal, and on a new stream, only one batch is in flight until the gateway has taken something.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from math import inf
from typing import Final

import grpc

from custommsg._reconnect import backoff, can_resume, ended
from custommsg._retry import MIN_ATTEMPT, retry_wait
from custommsg._status import from_result, from_rpc
from custommsg.errors import CustomMsgError, NotSent, OutcomeUnknown, Reason
from custommsg.model import Sent
from custommsg.v1 import custommsg_pb2 as pb

MAX_BATCH: Final = 256
"""Messages in one request."""
SMALL_BATCH: Final = 16
"""Messages. So few are not split over two requests."""
MAX_BATCH_SIZE: Final = 512 << 10
"""Bytes of messages in one request; the gateway accepts 4 MB."""
MAX_IN_FLIGHT: Final = 2048
"""Messages that are written and have no result yet; the gateway accepts no more on one stream."""
GRAIN: Final = 0.02
"""Seconds. Deadlines are checked no more often than this, for all messages at once."""


class Outgoing:
    """A message on its way. Its sender gets the outcome through `answer`, once, unless the message was abandoned.

    Args:
        peer_id: the peer.
        msg: the message, its type included.
        deadline: in seconds of the queue's clock.
        node_id: our node; empty for the gateway's only node.
    """

    __slots__ = ("awaited", "deadline", "msg", "node_id", "number", "peer_id", "refusal")

    def __init__(self, peer_id: bytes, msg: bytes, deadline: float, node_id: bytes = b"") -> None:
        self.peer_id = peer_id
        self.msg = msg
        self.deadline = deadline
        self.node_id = node_id
        self.number = -1
        """Its number on the stream, once it is written."""
        self.awaited = True
        """Whether somebody waits for the outcome."""
        self.refusal: CustomMsgError | None = None
        """Why an earlier attempt failed."""

    @property
    def destination(self) -> bytes:
        """The peer of our node: messages that have it in common keep their order."""
        return self.peer_id + self.node_id

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        """Give the outcome to the sender."""
        raise NotImplementedError


class SendQueue:
    """The messages of one sender.

    Args:
        retry: whether a message that was not sent may be retried, within its deadline.
        now: the clock, in seconds.
        jitter: returns random numbers from 0 to 1: many senders that lost their connection at the same time do not come
            back at the same time.
    """

    def __init__(
        self,
        *,
        retry: bool,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._retry = retry
        self._now = now
        self._jitter = jitter
        self._queue: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._refused: list[Outgoing] = []
        self._last_sent: dict[
            bytes, int
        ] = {}  # by destination: the highest number that was or may have been sent
        self._next_number = 0
        self._resume_at = 0.0
        self._heard = False  # whether a result came on this stream
        self._ever_heard = False  # whether a result came on any stream
        self._probing = True  # whether only one batch may be in flight, until the gateway has taken something
        self._failures = 0
        self.alarm = inf
        """When to call `tick`, in seconds of the clock."""

    def __len__(self) -> int:
        """Messages that have no outcome yet."""
        return len(self._queue) + len(self._in_flight) + len(self._refused)

    @property
    def has_work(self) -> bool:
        """Whether there is something to write now: if there is no stream, open one."""
        return bool(self._queue or self._refused) and self._now() >= self._resume_at

    def put(self, message: Outgoing) -> None:
        """Take a message."""
        self._queue.append(message)
        if message.deadline < self.alarm:
            self.alarm = message.deadline

    def next_batch(self) -> pb.SendCustomMsgStreamRequest | None:
        """Return what to write now; it counts as written then. None if there is nothing to write now."""
        if self._refused and not self._resume():
            return None
        queue, in_flight = self._queue, self._in_flight
        if not in_flight:
            self._last_sent.clear()
        elif self._probing:
            return None
        # Half of what has no result yet, so that the gateway works on one half while the callers of the other half go
        # on. In one batch, they would wait for each other: 64 callers send 36,000 messages/s instead of 49,000.
        half = (len(queue) + len(in_flight) + 1) // 2
        room = min(MAX_BATCH, MAX_IN_FLIGHT - len(in_flight), max(SMALL_BATCH, half))
        if not queue or room <= 0 or self._now() < self._resume_at:
            return None
        request = pb.SendCustomMsgStreamRequest()
        add, first, number, size = request.messages.add, self._next_number, self._next_number, 0
        while queue and number - first < room and size < MAX_BATCH_SIZE:
            message = queue.popleft()
            if not message.awaited:
                continue
            outbound = add(number=number, peer_id=message.peer_id, msg=message.msg)
            if message.node_id:
                outbound.node_id = message.node_id
            message.number = number
            in_flight[number] = message
            number += 1
            size += len(message.msg)
        self._next_number = number
        return request if number > first else None

    def take(self, response: pb.SendCustomMsgStreamResponse) -> None:
        """Take results."""
        if not self._heard:
            self._heard = self._ever_heard = True
            self._failures = 0
        in_flight, last_sent = self._in_flight, self._last_sent
        for result in response.results:
            number = result.number
            message = in_flight.pop(number, None)
            if message is None:
                continue  # its deadline has passed
            if result.HasField("error"):
                self._failed(message, from_result(result))
                continue
            self._probing = False
            destination = message.destination
            if last_sent.get(destination, -1) < number:
                last_sent[destination] = number
            if message.awaited:
                message.awaited = False
                message.answer(_sent(result.status, message.msg[:2]))

    def broke(self, error: grpc.RpcError | None) -> None:
        """Note that the stream has ended, with an error or without one."""
        unwritten = from_rpc(error, sends=False) if error is not None else ended()
        for message in self._in_flight.values():
            failure = self._of_written(error)
            if isinstance(failure, OutcomeUnknown):
                self._unknown(message, failure)
            else:
                message.refusal = failure
                self._refused.append(message)
        self._in_flight.clear()
        self._heard = False
        self._probing = True
        self._failures += 1
        if self._retry and can_resume(unwritten) and (self._ever_heard or unwritten.retry_after is not None):
            self._hold_back(backoff(unwritten, self._failures, self._jitter()))
        else:
            self._give_up(unwritten)

    def tick(self) -> None:
        """End the messages whose deadline has passed, and set the next alarm."""
        now = self._now()
        late = [message for message in self._all() if message.deadline <= now]
        for message in late:
            if self._in_flight.get(message.number) is message:
                del self._in_flight[message.number]
                self._unknown(message, _no_answer())
            else:
                _settle(message, message.refusal or _not_in_time())
        if late:
            self._queue = deque(message for message in self._queue if message.deadline > now)
            self._refused = [message for message in self._refused if message.deadline > now]
        self._set_alarm(now)

    def abandon(self, message: Outgoing) -> None:
        """Forget a message: it is not written any more, and nobody gets its outcome."""
        message.awaited = False
        while self._queue and not self._queue[0].awaited:
            self._queue.popleft()

    def abort(self) -> None:
        """End all messages, because the sender is closed."""
        for message in self._in_flight.values():
            self._unknown(message, _closed(OutcomeUnknown, "The message may or may not have been sent"))
        self._in_flight.clear()
        self._give_up(_closed(NotSent, "Nothing was sent"))

    def _failed(self, message: Outgoing, failure: CustomMsgError) -> None:
        if isinstance(failure, OutcomeUnknown):
            return self._unknown(message, failure)
        wait = retry_wait(failure, self._jitter()) if self._retry else None
        if wait is None:
            self._probing = False
        if wait is None or self._now() + wait + MIN_ATTEMPT > message.deadline or not message.awaited:
            return _settle(message, failure)
        message.refusal = failure
        self._refused.append(message)
        return self._hold_back(wait)

    def _unknown(self, message: Outgoing, failure: CustomMsgError) -> None:
        last = self._last_sent.get(message.destination, -1)
        self._last_sent[message.destination] = max(last, message.number)
        _settle(message, failure)

    def _of_written(self, error: grpc.RpcError | None) -> CustomMsgError:
        """Make the failure of a message that was written and has no result when its stream ends."""
        failure = from_rpc(error, sends=True) if error is not None else _no_result()
        # After the first result, the end of a stream no longer means that it was refused unread. But a gateway that
        # stops answers everything that it has read.
        if self._heard and failure.reason is not Reason.GATEWAY_STOPPING:
            return _no_result(failure)
        return failure

    def _hold_back(self, wait: float) -> None:
        self._probing = True
        self._resume_at = max(self._resume_at, self._now() + wait)
        self.alarm = min(self.alarm, self._resume_at)

    def _resume(self) -> bool:
        """Put the refused messages before the rest, in their order, if that is possible now."""
        if self._in_flight or self._now() < self._resume_at:
            return False
        for message in sorted(self._refused, key=lambda message: message.number, reverse=True):
            if message.refusal is not None and message.number < self._last_sent.get(message.destination, -1):
                _settle(message, message.refusal)
            else:
                self._queue.appendleft(message)
        self._refused.clear()
        return True

    def _give_up(self, failure: CustomMsgError) -> None:
        for message in chain(self._refused, self._queue):
            _settle(message, message.refusal or _again(failure))
        self._refused.clear()
        self._queue.clear()

    def _all(self) -> Iterator[Outgoing]:
        return chain(self._in_flight.values(), self._refused, self._queue)

    def _set_alarm(self, now: float) -> None:
        alarm = min((message.deadline for message in self._all()), default=inf)
        if now < self._resume_at < alarm:
            alarm = self._resume_at
        self.alarm = max(alarm, now + GRAIN)


def _settle(message: Outgoing, outcome: Sent | CustomMsgError) -> None:
    if message.awaited:
        message.awaited = False
        message.answer(outcome)


@lru_cache(maxsize=1024)
def _sent(status: str, type: bytes) -> Sent:
    return Sent(status=status, type=int.from_bytes(type, "big"))


def _again(failure: CustomMsgError) -> CustomMsgError:
    """Copy an error for one more message: raising an exception changes it."""
    return type(failure)(
        failure.reason,
        failure.code,
        failure.message,
        metadata=failure.metadata,
        retry_after=failure.retry_after,
        violations=failure.violations,
        detail=failure.detail,
    )


def _no_result(failure: CustomMsgError | None = None) -> OutcomeUnknown:
    code = failure.code if failure is not None else grpc.StatusCode.UNAVAILABLE
    why = failure.message if failure is not None else "The gateway ended the stream without a reason."
    message = f"The stream ended before the message had a result: it may or may not have been sent. {why}"
    return OutcomeUnknown(
        Reason.OUTCOME_UNKNOWN, code, message, detail=failure.detail if failure is not None else ""
    )


def _no_answer() -> OutcomeUnknown:
    message = (
        "The gateway did not answer within the timeout. The message may or may not have been sent: ask the peer before"
        " you send it again."
    )
    return OutcomeUnknown(Reason.OUTCOME_UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED, message)


def _not_in_time() -> NotSent:
    message = "The timeout passed before the message could be written to the gateway. Nothing was sent."
    return NotSent(Reason.NOT_SENT, grpc.StatusCode.DEADLINE_EXCEEDED, message)


def _closed(kind: type[NotSent | OutcomeUnknown], what: str) -> CustomMsgError:
    reason = Reason.NOT_SENT if kind is NotSent else Reason.OUTCOME_UNKNOWN
    return kind(reason, grpc.StatusCode.CANCELLED, f"The sender was closed. {what}.")
