"""The same without a gateway as fast as we could make it in Python: what batching alone can give.

One write for all that may be sent at once, the JSON written by hand, many more in flight.
"""

from __future__ import annotations

import asyncio
import json
from time import perf_counter
from typing import cast

from benchmarks.job import Job
from benchmarks.load.messages import message_of, peers_of
from benchmarks.load.meter import Meter


async def tuned(job: Job, meter: Meter) -> None:
    """Keep `job.callers` requests in flight on one connection."""
    _, protocol = await asyncio.get_running_loop().create_unix_connection(
        lambda: _Connection(job, meter), job.target
    )
    await protocol.lost


class _Connection(asyncio.Protocol):
    """The connection; it sends for each answer anew."""

    def __init__(self, job: Job, meter: Meter) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight = job.callers
        self._meter = meter
        self._message = message_of(job).hex()
        self._peers = peers_of(job)
        self._unanswered: dict[int, float] = {}
        self._next_id = 0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by type
        self._send(self._in_flight)

    def data_received(self, data: bytes) -> None:
        """Take the answers that are complete, and send as many messages."""
        *replies, self._buffer = (self._buffer + data).split(b"\n\n")
        for text in replies:
            reply = json.loads(text)
            due = self._unanswered.pop(reply["id"])
            if "result" in reply:
                self._meter.answered(due)
            else:
                self._meter.failed()
        if not self._meter.is_over:
            self._send(len(replies))
        elif not self._unanswered:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self.lost.done():
            self.lost.set_result(None)

    def _send(self, count: int) -> None:
        now, message = perf_counter(), self._message
        first, self._next_id = self._next_id, self._next_id + count
        self._unanswered.update((number, now) for number in range(first, first + count))
        self._transport.write(
            "".join(
                [
                    f'{{"jsonrpc":"2.0","id":{number},"method":"sendcustommsg",'
                    f'"params":{{"node_id":"{next(self._peers).hex()}","msg":"{message}"}}}}'
                    for number in range(first, first + count)
                ]
            ).encode()
        )
