"""The sender of the blocking client. `_send_queue` decides what it writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc

from custommsg import _core
from custommsg._bulk import Answer, Bulk
from custommsg._retry import checked_timeout
from custommsg._send_queue import Outgoing, SendQueue
from custommsg.errors import CustomMsgError
from custommsg.model import Outbound, Result, Sent
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

_LONG: Final = 3600.0
"""Seconds. Longer waits are split: a thread cannot wait for ever at once."""

_T = TypeVar("_T")


class Sender:
    """Sends many messages on one stream; made by `Client.sender`, closed by `with` or `close`.

    Messages that many threads send at the same time go out in one batch. A batch is written as soon as the one before
    it is, so a single message does not wait. One thread with many messages uses `send_many`.

    Order: messages to one peer are sent in the order in which `send` was called, or not at all. To keep the order, a
    message that is retried holds back all messages after it, and a message is not retried after a later one to the same
    peer was sent.

    Stream: it is opened with the first message, and again after it broke, until the timeout of each message. Messages
    that were not written yet, or that a stopping gateway did not read, go out on the new stream.
    """

    def __init__(self, stub: CustomMsgServiceStub, *, timeout: float, retry: bool) -> None:
        self._stub = stub
        self._timeout = timeout
        self._queue = SendQueue(retry=retry)
        self._changed = threading.Condition()  # its lock guards the queue and everything below
        self._call: grpc.Call | None = None
        self._thread: threading.Thread | None = None
        self._closing = self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def send(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        node_id: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send one custom message to one connected peer: like `Client.send`, at a fraction of its cost.

        Args:
            peer: the peer's node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; empty by default.
            msg: the whole message with its type: 2 to 65,535 bytes, or the same in hex.
            node_id: our node to send from, in the same form as `peer`; None for the gateway's only node.
            timeout: seconds, all attempts together; None for the client's.

        Raises:
            InvalidRequest, PeerUnknown, PeerNotConnected, NodeUnknown, NotSent, NodeError: nothing was sent.
            OutcomeUnknown: it may have been sent: the stream broke, or the timeout passed, before its result.
            CustomMsgError: any other failure; nothing was sent.
            RuntimeError: the sender is closed.
            TypeError: the message is given in neither way, or in both.
        """
        answers: SimpleQueue[Sent | CustomMsgError] = SimpleQueue()
        raw = _core.message(type=type, payload=payload, msg=msg)
        message = _Awaited(_core.peer_id(peer), raw, self._deadline(timeout), _core.node_id(node_id), answers)
        self._put(message)
        try:
            outcome = self._next(answers)
        except BaseException:  # Ctrl-C
            self._abandon([message])
            raise
        if isinstance(outcome, CustomMsgError):
            raise outcome
        return outcome

    def send_many(self, messages: Iterable[Outbound], *, timeout: float | None = None) -> Generator[Result]:
        """Send messages in order, and yield one result for each: like `Client.send_many`."""
        answers: SimpleQueue[Answer] = SimpleQueue()
        bulk = Bulk(answers.put)
        try:
            for message in messages:
                outgoing = bulk.begin(message, self._deadline(timeout))
                if outgoing.awaited:
                    self._put(outgoing)
                while bulk.is_full or not answers.empty():
                    yield bulk.result(self._next(answers))
            while bulk.unfinished:
                yield bulk.result(self._next(answers))
        finally:
            self._abandon(bulk.unfinished.values())

    def close(self) -> None:
        """Accept no more messages, wait for the outcome of those accepted, and end the stream.

        That takes no longer than the timeouts of the messages. Closing twice does no harm.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def abort(self) -> None:
        """End at once: messages not yet written are NotSent, those without a result OutcomeUnknown."""
        with self._changed:
            self._aborted = True
            if self._call is not None:
                self._call.cancel()
        self.close()

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._timeout if timeout is None else checked_timeout(timeout))

    def _put(self, message: Outgoing) -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("this sender is closed")
            self._queue.put(message)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="custommsg-sender", daemon=True)
                self._thread.start()

    def _next(self, answers: SimpleQueue[_T]) -> _T:
        """Wait for an answer, and check the deadlines meanwhile: the sender's own thread may be waiting for gRPC."""
        while True:
            try:
                return answers.get(timeout=self._time_to_alarm())
            except Empty:
                with self._changed:
                    self._tick()

    def _abandon(self, messages: Iterable[Outgoing]) -> None:
        with self._changed:
            for message in messages:
                self._queue.abandon(message)

    def _time_to_alarm(self) -> float:
        return min(_LONG, max(0.0, self._queue.alarm - time.monotonic()))

    def _tick(self) -> None:
        if self._time_to_alarm() <= 0:
            self._queue.tick()
            self._changed.notify_all()

    def _wait(self) -> None:
        self._changed.wait(self._time_to_alarm())
        self._tick()

    @property
    def _is_over(self) -> bool:
        return self._aborted or (self._closing and not self._queue)

    def _run(self) -> None:
        try:
            while self._await_work():
                self._stream()
        finally:
            with self._changed:
                self._closing = True
                self._queue.abort()

    def _await_work(self) -> bool:
        with self._changed:
            while not self._is_over and not self._queue.has_work:
                self._wait()
            return not self._is_over

    def _stream(self) -> None:
        """Open a stream, and write and read on it until it ends."""
        over = threading.Event()
        failure: grpc.RpcError | None = None
        try:
            responses = self._stub.SendCustomMsgStream(self._requests(over))
            with self._changed:
                self._call = responses
                if self._aborted:
                    responses.cancel()
            for response in responses:
                with self._changed:
                    self._queue.take(response)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            failure = error
        with self._changed:
            over.set()
            self._queue.broke(failure)
            self._changed.notify_all()

    def _requests(self, over: threading.Event) -> Iterator[pb.SendCustomMsgStreamRequest]:
        """Yield what to write. gRPC asks for the next request when it has written the last one."""
        while (request := self._await_batch(over)) is not None:
            yield request

    def _await_batch(self, over: threading.Event) -> pb.SendCustomMsgStreamRequest | None:
        with self._changed:
            while not over.is_set() and not self._is_over:
                request = self._queue.next_batch()
                if request is not None:
                    return request
                self._wait()
            return None


class _Awaited(Outgoing):
    """A message whose sender waits for its outcome."""

    __slots__ = ("_answers",)

    def __init__(
        self,
        peer_id: bytes,
        msg: bytes,
        deadline: float,
        node_id: bytes,
        answers: SimpleQueue[Sent | CustomMsgError],
    ) -> None:
        super().__init__(peer_id, msg, deadline, node_id)
        self._answers = answers

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        self._answers.put(outcome)
