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

from custommsg_server.domain.errors import Reason, RelayError, not_sent
from custommsg_server.node.lightningd.frames import END, FrameError, Frames
from custommsg_server.node.lightningd.turns import Batch, Reply, Turns

log = structlog.get_logger()

MAX_REPLY_SIZE: Final = 64 << 20
"""Bytes: beyond any real reply (listpeers takes some 300 bytes a peer), and a bound for invalid ones."""
MAX_WRITE_SIZE: Final = 256 << 10
"""Bytes given to the transport at once; the rest waits here, where it still counts as not sent."""

_parse: Final = json.JSONDecoder().decode
"""Parses JSON. `json.loads` would find out the encoding, which takes longer than to parse a short reply."""


class Connection(asyncio.Protocol):
    """A connection to lightningd. It never writes a request twice.

    Args:
        window: how many requests may be unanswered at once.
        max_waiting: how many more may wait for their turn.
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
        self._waiting = Turns()
        self._fewer = asyncio.Event()
        self._sent: dict[str, tuple[Batch, int, float]] = {}
        self._frames = Frames(MAX_REPLY_SIZE)
        self.last_reply = 0.0
        """When lightningd last said something, in seconds of the loop's clock."""

    @property
    def is_open(self) -> bool:
        """Whether requests can be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def oldest(self) -> float:
        """When the longest unanswered request was written, in seconds of the loop's clock, or infinity."""
        return next(iter(self._sent.values()))[2] if self._sent else float("inf")

    def has_room(self, caller: str) -> bool:
        """Whether there is room for more of a caller: as much as its part is left for others."""
        return self._waiting.count_of(caller) <= self._max_waiting - self._waiting.count

    async def room(self, caller: str) -> None:
        """Wait until there is room for more of a caller: for one that can be held back."""
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
        """Call a command once for each request, in order; return for each the node's reply, or why it has none.

        If the caller is cancelled, what was not written yet never will be.

        Args:
            method: the command.
            requests: its parameters, as JSON.
            deadline: in seconds of the loop's clock; may be infinite.
            caller: whose turn they take; empty: the gateway's own.
            held_back: the caller has waited for `room`, so it is not refused for want of room.
        """
        if not self.is_open:
            return [unavailable("the connection to it was lost")] * len(requests)
        if not held_back and self._waiting.count + len(requests) > self._max_waiting + self._window:
            return [overloaded()] * len(requests)
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

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports have all the methods, but are not instances of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_WRITE_SIZE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer each request: it was written and its outcome is unknown, or it was not written."""
        self._transport = None
        batches = [*self._waiting.clear(), *(batch for batch, _, _ in self._sent.values())]
        self._fewer.set()
        self._sent.clear()
        for batch in batches:
            batch.give_up(written=_lost(), unwritten=unavailable("the connection to it was lost"))
        self._on_lost()

    def pause_writing(self) -> None:
        """Keep the rest here: lightningd reads slower than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on: lightningd reads again."""
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take the replies that are complete."""
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

    # Inside.

    def _take(self, reply: object) -> None:
        if not isinstance(reply, dict):
            raise ValueError("not an object")
        sent = self._sent.pop(str(reply.get("id")), None)
        if sent is not None:
            batch, index, _ = sent
            batch.answer(index, reply)
        elif "id" in reply:  # else it is a notification, which we did not ask for
            log.warning("lightningd answered a request that was not made", id=str(reply["id"])[:100])

    def _reject(self, what: str) -> None:
        # After an invalid reply, the next ones cannot be trusted to belong to their requests.
        log.error("lightningd sent " + what + "; closing the connection")
        self.close()

    def _flush(self) -> None:
        """Write what waits, as far as the window and the transport allow."""
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
        """Write requests of a batch, up to one; return how many bytes that were."""
        sent, number, now = self._sent, self._next_id, self._loop.time()
        index, size = batch.written, 0
        prefix = f"custommsg:{batch.method}#"  # an id as pyln-client makes it: who asks, the method, a number
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
                " Ask the peer in your own protocol before you send it again.",
                expired=True,
            ),
            unwritten=not_sent(),
        )

    def _forget(self, batch: Batch) -> None:
        # The caller has gone: what was not written never will be.
        self._waiting.forget(batch)
        self._fewer.set()


def unavailable(why: str) -> RelayError:
    """Make the error for a node that cannot be reached, when nothing was written to it."""
    return RelayError(
        Reason.NODE_UNAVAILABLE,
        f"The Lightning node cannot be reached: {why}. Nothing was sent;"
        " try again, and check that lightningd runs.",
        retry_after=1.0,
    )


def overloaded() -> RelayError:
    """Make the error for more requests than may wait."""
    return RelayError(
        Reason.OVERLOADED,
        "Too many requests wait for the node. Nothing was sent; try again, with fewer at once.",
        metadata={"limit": "node_queue"},
        retry_after=0.5,
    )


def _lost() -> RelayError:
    return RelayError(
        Reason.OUTCOME_UNKNOWN,
        "The connection to the node broke before it answered: the message may or may not have been sent."
        " Ask the peer in your own protocol before you send it again.",
    )
