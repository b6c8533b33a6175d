"""A send stream in a test: each message says what becomes of it, each stream how it ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import status_pb2

from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import QUEUED, status_details

Code = grpc.StatusCode


class Fate(IntEnum):
    """What becomes of a message, as its type says."""

    SENT = 0
    REFUSED = 1
    REFUSED_AT_FIRST = 2
    SENT_BUT_UNKNOWN = 3
    REFUSED_FOR_LONG = 4
    NO_MESSAGE = 5
    """What the client itself finds."""


REFUSALS: Final = {
    Fate.REFUSED: (Code.FAILED_PRECONDITION, "PEER_NOT_CONNECTED", None),
    Fate.REFUSED_AT_FIRST: (Code.UNAVAILABLE, "NODE_UNAVAILABLE", 0.001),
    Fate.SENT_BUT_UNKNOWN: (Code.UNKNOWN, "OUTCOME_UNKNOWN", None),
    Fate.REFUSED_FOR_LONG: (Code.RESOURCE_EXHAUSTED, "OVERLOADED", 3600.0),
}


@dataclass(frozen=True)
class End:
    """How a stream ends.

    Args:
        after: messages that are read before, at least.
        kind: "stops" (answers what it has read, then says so), "breaks" (with the last request unanswered, of
            which the first half was sent), "ends" (likewise, but with OK).
    """

    after: int
    kind: str


class Streams:
    """Serves the streams of one test.

    Args:
        ends: how the first streams end; those after them last.
        on_read: is told how many messages were read so far.
    """

    def __init__(self, ends: Sequence[End] = (), on_read: Callable[[int], None] = lambda _: None) -> None:
        self._ends = deque(ends)
        self._on_read = on_read
        self._read = 0
        self._refused: set[bytes] = set()
        self.opened = 0
        self.batches: list[int] = []
        self.sent: list[tuple[bytes, bytes]] = []
        self.node_ids: list[bytes] = []

    def times_sent(self) -> Counter[bytes]:
        """Count how often each message was sent."""
        return Counter(msg for _, msg in self.sent)

    async def __call__(self, context: Any) -> None:
        """Serve one stream."""
        self.opened += 1
        end = self._ends.popleft() if self._ends else None
        read = 0
        while (request := await context.read()) is not grpc.aio.EOF:
            messages = list(request.messages)
            read += len(messages)
            self._read += len(messages)
            self.batches.append(len(messages))
            self._on_read(self._read)
            if end is not None and read >= end.after:
                return await self._end(end.kind, messages, context)
            await self._answer(messages, context)
        return None

    async def _end(self, kind: str, messages: list[Any], context: Any) -> None:
        if kind == "stops":
            await self._answer(messages, context)
            details = status_details(Code.UNAVAILABLE, "GATEWAY_STOPPING", retry_after=0.001)
            await context.abort(Code.UNAVAILABLE, "It stops.", (("grpc-status-details-bin", details),))
        for message in messages[: len(messages) // 2]:
            self._result(message)
        if kind == "breaks":
            await context.abort(Code.UNAVAILABLE, "Socket closed")

    async def _answer(self, messages: list[Any], context: Any) -> None:
        await context.write(pb.SendCustomMsgStreamResponse(results=map(self._result, messages)))

    def _result(self, message: Any) -> pb.SendResult:
        fate = Fate(int.from_bytes(message.msg[:2], "big"))
        if fate is Fate.SENT or message.msg in self._refused or fate is Fate.SENT_BUT_UNKNOWN:
            self.sent.append((message.peer_id, message.msg))
            self.node_ids.append(message.node_id)
            if fate is not Fate.SENT_BUT_UNKNOWN:
                return pb.SendResult(number=message.number, status=QUEUED)
        elif fate is Fate.REFUSED_AT_FIRST:
            self._refused.add(message.msg)
        code, reason, retry_after = REFUSALS[fate]
        error = status_pb2.Status.FromString(status_details(code, reason, retry_after=retry_after))
        number = pb.Reason.Value(f"REASON_{reason}")
        return pb.SendResult(number=message.number, error=error, reason=number)
