"""The queue of requests to lightningd, fair to callers: deficit round robin by bytes (Shreedhar and Varghese, 1995)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from custommsg_server.domain.errors import RelayError

QUANTUM: Final = 16 << 10
"""Bytes of requests that a caller may write in one turn, on average: some 50 small messages."""

Reply = Mapping[str, Any]
"""A JSON-RPC reply: an object with `result` or `error`."""


class Batch:
    """JSON-RPC requests that were made together; each gets exactly one answer.

    They are written in order, so a number says which of them were written.

    Args:
        method: the command that all of them call.
        requests: the parameters of each, as JSON.
        caller: who makes the requests.
        done: gets its result when all are answered.
    """

    __slots__ = ("answers", "caller", "done", "method", "missing", "requests", "written")

    def __init__(self, method: str, requests: Sequence[str], caller: str, done: asyncio.Future[None]) -> None:
        self.method = method
        self.requests = requests
        self.caller = caller
        self.answers: list[Reply | RelayError | None] = [None] * len(requests)
        self.missing = len(requests)
        self.written = 0
        self.done = done

    def answer(self, index: int, answer: Reply | RelayError) -> None:
        """Set the answer to one request."""
        if self.answers[index] is None:
            self.answers[index] = answer
            self.missing -= 1
            if not self.missing and not self.done.done():
                self.done.set_result(None)

    def give_up(self, written: RelayError, unwritten: RelayError) -> None:
        """Answer each request that has no answer yet: with one error if it was written, with the other if not."""
        for index, answer in enumerate(self.answers):
            if answer is None:
                self.answer(index, written if index < self.written else unwritten)


class _Queue:
    """The batches of one caller, in order."""

    __slots__ = ("batches", "count", "credit")

    def __init__(self) -> None:
        self.batches: OrderedDict[Batch, None] = OrderedDict()
        self.count = 0
        self.credit = QUANTUM
        """Bytes that may be written before the next caller's turn."""


class FairQueue:
    """All requests that wait. Those of one caller are written in the order in which they were made."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self.count = 0
        """How many requests wait."""

    def count_of(self, caller: str) -> int:
        """Return how many requests of a caller wait."""
        queue = self._queues.get(caller)
        return 0 if queue is None else queue.count

    def add(self, batch: Batch) -> None:
        """Add a batch."""
        queue = self._queues.get(batch.caller)
        if queue is None:
            queue = self._queues[batch.caller] = _Queue()
        queue.batches[batch] = None
        self._count(queue, len(batch.requests))

    def next(self) -> tuple[Batch, int] | None:
        """Return the next batch, and about how many bytes of it may be written; None if nothing waits."""
        while self._queues:
            caller, queue = next(iter(self._queues.items()))
            if queue.credit > 0:
                return next(iter(queue.batches)), queue.credit
            queue.credit += QUANTUM
            self._queues.move_to_end(caller)
        return None

    def wrote(self, batch: Batch, requests: int, size: int) -> None:
        """Count written requests of a batch, and their total size in bytes."""
        queue = self._queues[batch.caller]
        queue.credit -= size
        self._count(queue, -requests)
        if batch.written == len(batch.requests):
            self._remove(batch)

    def forget(self, batch: Batch) -> None:
        """Remove a batch, if it still waits."""
        queue = self._queues.get(batch.caller)
        if queue is not None and batch in queue.batches:
            self._count(queue, batch.written - len(batch.requests))
            self._remove(batch)

    def clear(self) -> list[Batch]:
        """Remove all batches, and return them."""
        batches = [batch for queue in self._queues.values() for batch in queue.batches]
        self._queues.clear()
        self.count = 0
        return batches

    def _count(self, queue: _Queue, more: int) -> None:
        queue.count += more
        self.count += more

    def _remove(self, batch: Batch) -> None:
        queue = self._queues[batch.caller]
        del queue.batches[batch]
        if not queue.batches:
            del self._queues[batch.caller]
