"""The plugin protocol at our end of the stream. Promise 1: the answer to the hook is `continue`, always.

lightningd exits on any other answer, an error included. So nothing of a hook call decides what is answered
but its id, and no exception on the way can change that.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import structlog

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import message_type
from custommsg_server.node.lightningd.calls import Frames, MalformedCallError, message_of, peer_event_of
from custommsg_server.node.lightningd.manifest import HOOK, Init, Manifest

log = structlog.get_logger()


class DeclinedError(Exception):
    """We cannot run as this lightningd's plugin; the message tells it why."""


class Intake(Protocol):
    """Where arrivals go."""

    def takes(self, message_type: int) -> bool:
        """Whether messages of this type are wanted; the others are answered, and forgotten."""

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        """Keep arrivals, in order; the future ends when they are safe (True) or lost (False)."""

    @property
    def is_full(self) -> bool:
        """Whether to bring no more for now."""

    async def has_room(self) -> None:
        """Wait until it is not full."""


class Channel(asyncio.Protocol):
    """One lightningd at the other end.

    Args:
        manifest: answers what is no hook call.
        on_init: called when lightningd has introduced itself, before it is answered; returns where arrivals
            go, or raises DeclinedError.
        on_lost: called once when the channel has ended.
    """

    def __init__(
        self,
        manifest: Manifest,
        on_init: Callable[[Channel, Init], Awaitable[Intake]],
        on_lost: Callable[[Channel], None],
    ) -> None:
        self._manifest = manifest
        self._on_init = on_init
        self._on_lost = on_lost
        self._frames = Frames()
        self._intake: Intake | None = None
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End the channel; lightningd goes on without us."""
        for transport in (self._reader, self._writer):
            if transport is not None:
                transport.close()

    def write_to(self, writer: asyncio.WriteTransport) -> None:
        """Write to another transport than what is read from (stdout beside stdin)."""
        self._writer = writer

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports have all the methods, and are none of asyncio's classes.
        self._reader = cast("asyncio.ReadTransport", transport)
        if self._writer is None:  # else they are two: stdin and stdout
            self._writer = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._reader = self._writer = None
        self._on_lost(self)

    def eof_received(self) -> None:
        """lightningd has ended: the transport closes itself."""

    def data_received(self, data: bytes) -> None:
        """Take what lightningd wrote."""
        try:
            frames = self._frames.feed(data)
        except MalformedCallError as error:
            log.error("the plugin channel is out of step; closing it", why=str(error))
            self.close()
            return
        arrivals: list[Arrival] = []
        hook_ids: list[Any] = []
        for frame in frames:
            self._take(frame, arrivals, hook_ids)
        self._keep(arrivals, hook_ids)

    # Inside.

    def _take(self, frame: bytes, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        try:
            call = json.loads(frame)
            method, request_id, params = call["method"], call.get("id"), call.get("params")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            log.error("something that is no JSON-RPC came through the plugin channel", size=len(frame))
            return
        if method == HOOK and request_id is not None:
            hook_ids.append(request_id)  # first of all: nothing after this can keep it from its answer
        try:
            if method == HOOK:
                arrival = message_of(params, time.time_ns())
                if self._intake is not None and self._intake.takes(message_type(arrival.message)):
                    arrivals.append(arrival)
            elif method == "shutdown":
                self.close()  # lightningd waits for its plugins to leave
            elif request_id is None:
                if event := peer_event_of(str(method), params, time.time_ns()):
                    arrivals.append(event)
            else:
                self._start(self._answer(frame, str(method), request_id))
        except MalformedCallError as error:
            log.error("lightningd made a call that cannot be read", method=str(method)[:40], why=str(error))
        except Exception:
            log.exception("a call of lightningd was not understood", method=str(method)[:40])

    def _keep(self, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        """Keep what arrived, then let lightningd go on: the answer says that the message is safe, or lost."""
        if not arrivals or self._intake is None:
            self._continue(hook_ids)
            return
        try:
            kept = self._intake.append(arrivals)
        except Exception:
            log.exception("the inbox took nothing")
            self._continue(hook_ids)
            return
        kept.add_done_callback(lambda _: self._continue(hook_ids))
        if self._intake.is_full and self._reader is not None:
            self._reader.pause_reading()
            self._start(self._resume_reading(self._intake))

    async def _resume_reading(self, intake: Intake) -> None:
        await intake.has_room()
        if self._reader is not None:
            self._reader.resume_reading()

    def _continue(self, hook_ids: list[Any]) -> None:
        if hook_ids and self._writer is not None and not self._writer.is_closing():
            self._writer.write(
                b"".join(
                    b'{"jsonrpc":"2.0","id":%b,"result":{"result":"continue"}}\n\n' % json.dumps(one).encode()
                    for one in hook_ids
                )
            )

    async def _answer(self, frame: bytes, method: str, request_id: Any) -> None:
        try:
            answer = self._manifest.answer(frame)
            if method == "init" and self._manifest.init is not None:
                self._intake = await self._on_init(self, self._manifest.init)
                self._intake.append([Arrival(Kind.INTERRUPTION, time.time_ns())])
        except DeclinedError as error:
            answer = _reply(request_id, "result", {"disable": str(error)})
        except Exception:
            log.exception("a call of lightningd could not be answered", method=method[:40])
            answer = _reply(request_id, "error", {"code": -32603, "message": "the gateway's log says why"})
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(answer)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reply(request_id: Any, key: str, value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, key: value}).encode() + b"\n\n"
