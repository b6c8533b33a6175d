"""One connection to lightningd's JSON-RPC socket: many requests in flight, answers matched by id.

The socket is a stream: requests need no separator, every reply ends with two newlines, and replies come in
any order (https://docs.corelightning.org/docs/json-rpc).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, cast

import structlog

from custommsg_server.domain.errors import Reason, RelayError, node_unavailable, not_sent, overloaded
from custommsg_server.node.lightningd.fair_queue import Batch, FairQueue, Reply
from custommsg_server.node.lightningd.frames import END, FrameError, Frames

log = structlog.get_logger()

MAX_REPLY_SIZE: Final = 64 << 20
"""The maximum size of a reply in bytes; a real one is smaller (listpeers has some 300 bytes for each peer)."""
MAX_WRITE_SIZE: Final = 256 << 10
"""Bytes that are passed to the transport at once; the rest waits here, where it still counts as not sent."""

_parse: Final = json.JSONDecoder().decode
"""Parses JSON. `json.loads` would find out the encoding, which takes longer than to parse a short reply."""


class Connection(asyncio.Protocol):
    """A connection to lightningd. It never writes a request twice.

    Args:
        window: the maximum number of unanswered requests.
        max_waiting: the maximum number of requests that wait to be written.
        on_lost: called once when the connection has ended.
    """

    def __init__(self, window: int, max_waiting: int, on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._window = window
        self._max_waiting = max_waiting
        self._on_lost = on_lost
        self._next_id = 1
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._waiting = FairQueue()
        self._fewer = asyncio.Event()
        self._sent: dict[str, tuple[Batch, int, float]] = {}
        self._frames = Frames(MAX_REPLY_SIZE)
        self.last_reply = 0.0
        """When the last data from lightningd arrived, in seconds of the loop's clock."""

    @property
    def is_open(self) -> bool:
        """Whether requests can be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def oldest(self) -> float:
        """When the longest unanswered request was written, in seconds of the loop's clock, or infinity."""
        return next(iter(self._sent.values()))[2] if self._sent else float("inf")

    def has_room(self, caller: str) -> bool:
        """Whether a caller may add requests: it has at most as many as there are free places for others."""
        return self._waiting.count_of(caller) <= self._max_waiting - self._waiting.count

    async def room(self, caller: str) -> None:
        """Wait until a caller may add requests."""
        while not self.has_room(caller):
            self._fewer.clear()
            await self._fewer.wait()

    async def call(
        self,
        method: str,
        requests: Sequence[str],
        deadline: float,
        caller: str = "",
        held_back: bool = False,
    ) -> list[Reply | RelayError]:
        """Call a command once for each request, in order; return for each the node's reply or an error.

        If this is cancelled, requests that were not written yet are not sent.

        Args:
            method: the command.
            requests: its parameters, as JSON.
            deadline: in seconds of the loop's clock; may be infinite.
            caller: who makes the requests; empty: the gateway itself.
            held_back: the caller has waited for `room`, so the requests are not refused.
        """
        if not self.is_open:
            return [node_unavailable("the connection to it was lost")] * len(requests)
        if not held_back and self._waiting.count + len(requests) > self._max_waiting + self._window:
            return [queue_full()] * len(requests)
        if not requests:
            return []
        batch = Batch(method, requests, caller, self._loop.create_future())
        timer = None if deadline == inf else self._loop.call_at(deadline, self._expire, batch)
        self._waiting.add(batch)
        self._flush()
        try:
            await batch.done
        finally:
            if timer is not None:
                timer.cancel()
            if batch.written < len(batch.requests):
                self._forget(batch)
        return cast("list[Reply | RelayError]", batch.answers)  # none is missing

    def close(self) -> None:
        """End the connection; unanswered requests get an error."""
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # uvloop's transports have all the methods, but are not instances of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_WRITE_SIZE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail each request: the outcome of written ones is unknown, the others were not sent."""
        self._transport = None
        batches = [*self._waiting.clear(), *(batch for batch, _, _ in self._sent.values())]
        self._fewer.set()
        self._sent.clear()
        for batch in batches:
            batch.give_up(written=_lost(), unwritten=node_unavailable("the connection to it was lost"))
        self._on_lost()

    def pause_writing(self) -> None:
        """Stop writing: lightningd reads slower than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue: lightningd reads again."""
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Process the replies that are complete."""
        self.last_reply = self._loop.time()
        try:
            complete = self._frames.feed(data)
            if not complete:
                return
            for reply in _parse(f"[{complete.replace(END, b',').decode()}]"):  # one call for all
                self._take(reply)
        except FrameError as error:
            self._reject(str(error))
            return
        except (ValueError, RecursionError):
            self._reject("an invalid JSON-RPC reply")
            return
        self._flush()

    def _take(self, reply: object) -> None:
        if not isinstance(reply, dict):
            raise ValueError("not an object")
        sent = self._sent.pop(str(reply.get("id")), None)
        if sent is not None:
            batch, index, _ = sent
            batch.answer(index, reply)
        elif "id" in reply:  # otherwise it is a notification
            log.warning("lightningd answered an unknown request", id=str(reply["id"])[:100])

    def _reject(self, what: str) -> None:
        # After an invalid reply, the next ones cannot be trusted to belong to their requests.
        log.error("lightningd sent " + what + "; closing the connection")
        self.close()

    def _flush(self) -> None:
        """Write the requests that wait, as far as the window and the transport allow."""
        while self._waiting.count and self._transport is not None and not self._paused:
            out: list[str] = []
            room, size = self._window - len(self._sent), 0
            while room > 0 and size < MAX_WRITE_SIZE and (turn := self._waiting.next()) is not None:
                batch, credit = turn
                first = batch.written
                end, most = min(len(batch.requests), first + room), min(MAX_WRITE_SIZE - size, credit)
                written = self._write_some(batch, end, most, out)
                self._waiting.wrote(batch, batch.written - first, written)
                room -= batch.written - first
                size += written
            if not out:
                return
            self._transport.write("".join(out).encode())
            self._fewer.set()

    def _write_some(self, batch: Batch, end: int, max_size: int, out: list[str]) -> int:
        """Write requests of a batch, up to the index `end`; return their size in bytes."""
        sent, number, now = self._sent, self._next_id, self._loop.time()
        index, size = batch.written, 0
        prefix = f"custommsg:{batch.method}#"  # an id as pyln-client makes it: program, method, number
        middle = f'","method":"{batch.method}","params":'
        while index < end and size < max_size:
            request_id = f"{prefix}{number}"
            text = f'{{"jsonrpc":"2.0","id":"{request_id}{middle}{batch.requests[index]}}}'
            out.append(text)
            sent[request_id] = (batch, index, now)
            size += len(text)
            number += 1
            index += 1
        batch.written, self._next_id = index, number
        return size

    def _expire(self, batch: Batch) -> None:
        self._forget(batch)
        batch.give_up(
            written=RelayError(
                Reason.OUTCOME_UNKNOWN,
                "The deadline passed before the node answered: the message may or may not have been sent."
                " Find out from the peer, in your own protocol, before you send it again.",
                expired=True,
            ),
            unwritten=not_sent(),
        )

    def _forget(self, batch: Batch) -> None:
        # Requests that were not written are not sent.
        self._waiting.forget(batch)
        self._fewer.set()


def queue_full() -> RelayError:
    """Make the error for more requests than may wait."""
    return overloaded(
        "node_queue", "Too many requests wait for the node. Try again, with fewer at once.", 0.5
    )


def _lost() -> RelayError:
    return RelayError(
        Reason.OUTCOME_UNKNOWN,
        "The connection to the node broke before it answered: the message may or may not have been sent."
        " Find out from the peer, in your own protocol, before you send it again.",
    )
