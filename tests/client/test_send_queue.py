"""What a sender decides, without a network and without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import grpc
import pytest
from google.rpc import status_pb2

import custommsg
from custommsg import CustomMsgError, Reason, Sent, _send_queue
from custommsg._send_queue import Outgoing, SendQueue
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import QUEUED, status_details

Code = grpc.StatusCode
A, B = b"\x02" * 33, b"\x03" * 33


class Kept(Outgoing):
    """A message that keeps its outcomes."""

    def __init__(self, peer: bytes, deadline: float, msg: bytes = b"\x94\x19") -> None:
        super().__init__(peer, msg, deadline)
        self.outcomes: list[Sent | CustomMsgError] = []

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        self.outcomes.append(outcome)


class Bench:
    """A send queue with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.queue = SendQueue(retry=True, now=lambda: self.now, jitter=lambda: 0.0)

    def put(self, *peers: bytes, timeout: float = 10.0) -> list[Kept]:
        messages = [Kept(peer, self.now + timeout) for peer in peers]
        for message in messages:
            self.queue.put(message)
        return messages

    def write(self) -> list[int]:
        request = self.queue.next_batch()
        return [message.number for message in request.messages] if request is not None else []

    def answer(self, *results: pb.SendResult) -> None:
        self.queue.take(pb.SendCustomMsgStreamResponse(results=results))


def sent(number: int) -> pb.SendResult:
    return pb.SendResult(number=number, status=QUEUED)


def refused(number: int, retry_after: float | None = 1.0, reason: str = "NODE_UNAVAILABLE") -> pb.SendResult:
    details = status_details(Code.UNAVAILABLE, reason, retry_after=retry_after)
    return pb.SendResult(number=number, error=status_pb2.Status.FromString(details))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_was_refused_for_now_goes_before_the_rest_in_its_order(bench: Bench) -> None:
    """It waits until all that was in flight is answered, and as long as the gateway asks for."""
    a, b = bench.put(A, B)
    assert bench.write() == [0, 1]
    bench.put(A)
    bench.answer(refused(1))
    assert bench.write() == [], "what is in flight may be refused, too"
    bench.answer(refused(0))
    assert bench.write() == []
    assert bench.queue.alarm == 101.0
    bench.now = 101.0
    request = bench.queue.next_batch()
    assert request is not None
    assert [message.peer_id for message in request.messages] == [A, B, A]
    bench.answer(sent(2), sent(3), sent(4))
    assert [type(outcome) for message in (a, b) for outcome in message.outcomes] == [Sent, Sent]


def test_what_was_overtaken_is_not_tried_again(bench: Bench) -> None:
    """A later message to the same peer was sent, or may have been: keeping the order is more important than a retry."""
    messages = bench.put(A, A, B, B)
    bench.write()
    unknown = pb.SendResult(number=3, error=status_pb2.Status(code=2))
    bench.answer(refused(0), sent(1), refused(2), unknown)
    bench.now = 102.0
    assert bench.write() == []
    assert [type(message.outcomes[0]).__name__ for message in messages] == [
        "NotSent",
        "Sent",
        "NotSent",
        "OutcomeUnknown",
    ]


def test_a_retry_that_would_come_too_late_is_not_waited_for(bench: Bench) -> None:
    """The error comes at once, and says when to come back."""
    [message] = bench.put(A)
    bench.write()
    bench.answer(refused(0, retry_after=60))
    [failure] = message.outcomes
    assert isinstance(failure, custommsg.NotSent)
    assert failure.retry_after == 60


def test_a_deadline_tells_what_was_written(bench: Bench) -> None:
    """A message that was not written was not sent; one that was may have been, and a later result changes nothing."""
    [written] = bench.put(A)
    bench.write()
    [waiting] = bench.put(A, timeout=5)
    assert bench.queue.alarm == 105.0
    bench.now = 110.0
    bench.queue.tick()
    assert isinstance(written.outcomes[0], custommsg.OutcomeUnknown)
    assert isinstance(waiting.outcomes[0], custommsg.NotSent)
    assert {outcome.code for outcome in (*written.outcomes, *waiting.outcomes)} == {  # type: ignore[union-attr]
        Code.DEADLINE_EXCEEDED
    }
    bench.answer(sent(0))
    assert len(written.outcomes) == 1
    assert len(bench.queue) == 0
    bench.queue.tick()
    assert bench.queue.alarm == inf


def test_a_message_that_waits_for_its_retry_fails_with_its_refusal(bench: Bench) -> None:
    """The gateway's reason says more than that the time is over."""
    [message] = bench.put(A)
    bench.write()
    bench.answer(refused(0, retry_after=9))
    bench.now = 200.0
    bench.queue.tick()
    assert [failure.reason for failure in message.outcomes] == [Reason.NODE_UNAVAILABLE]  # type: ignore[union-attr]


def test_what_was_taken_back_is_not_written(bench: Bench) -> None:
    """Its sender does not wait any more."""
    first, second, third = bench.put(A, A, A)
    for message in (first, second):
        bench.queue.abandon(message)
    assert bench.write() == [0]
    bench.answer(sent(0))
    assert (first.outcomes, second.outcomes, len(third.outcomes)) == ([], [], 1)


def test_batches_and_what_is_in_flight_are_bounded(bench: Bench) -> None:
    """By messages and by bytes; a request stays far below what a gateway accepts."""
    bench.put(*[A] * 5000)
    first = bench.write()
    assert len(first) == _send_queue.MAX_BATCH
    assert bench.write() == [], "the first batch of a stream goes alone"
    bench.answer(*map(sent, first))
    sizes = []
    while written := bench.write():
        sizes.append(len(written))
    assert set(sizes) == {_send_queue.MAX_BATCH}
    assert sum(sizes) == _send_queue.MAX_IN_FLIGHT
    large = Bench()
    for _ in range(100):
        large.queue.put(Kept(A, inf, bytes(65_535)))
    request = large.queue.next_batch()
    assert request is not None
    assert request.ByteSize() < 1 << 20


ABORTS: list[tuple[Callable[[Bench], None], int]] = [
    (lambda bench: bench.queue.abort(), 0),
    (lambda bench: bench.queue.broke(None), 1),
]


@pytest.mark.parametrize(("end", "left"), ABORTS)
def test_the_end_tells_what_was_written(bench: Bench, end: Callable[[Bench], None], left: int) -> None:
    """What is in flight has an unknown outcome; the rest was not sent, or waits for the next stream."""
    bench.put(B)
    bench.write()
    bench.answer(sent(0))
    [written] = bench.put(A)
    bench.write()
    [waiting] = bench.put(A)
    end(bench)
    assert isinstance(written.outcomes[0], custommsg.OutcomeUnknown)
    assert all(isinstance(outcome, custommsg.NotSent) for outcome in waiting.outcomes)
    assert len(waiting.outcomes) == 1 - left
    assert len(bench.queue) == left


def test_the_order_is_kept_for_each_of_our_nodes(bench: Bench) -> None:
    """The same peer of two of our nodes is two connections: neither overtakes the other."""
    ours, other = Kept(A, bench.now + 10), Kept(A, bench.now + 10)
    other.node_id = B
    for message in (ours, other):
        bench.queue.put(message)
    bench.write()
    bench.answer(refused(0), sent(1))
    bench.now = 101.0
    assert bench.write() == [2], "the retry of the first was not overtaken"
    bench.answer(sent(2))
    assert [type(outcome) for outcome in ours.outcomes] == [Sent]
