"""The plugin protocol at our end of the stream. Promise 1: the answer to the hook is `continue`, always.

lightningd exits on any other answer, an error included. So nothing of a hook call decides what is answered
but its id, and no exception on the way can change that.

The protocol is JSON-RPC 2.0 (https://docs.corelightning.org/docs/a-day-in-the-life-of-a-plugin).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, cast

import structlog

from custommsg_server.domain import wire
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.events import MESSAGE, Arrival, Kind
from custommsg_server.node.lightningd.frames import END, FrameError, Frames
from custommsg_server.node.lightningd.manifest import HOOK, Init, Manifest

log = structlog.get_logger()

MAX_CALL_SIZE: Final = 16 << 20
"""Bytes: far beyond what lightningd writes (a hook call with the largest message has 132 kB)."""
_MAX_ID_SIZE: Final = 100
"""Characters of the id of a hook call up to which it names an arrival; lightningd's have about 30."""
_PEER_EVENTS: Final = {"connect": Kind.CONNECTED, "disconnect": Kind.DISCONNECTED}
# What json.loads and json.dumps do, without their choice of options for each message.
_read = json.JSONDecoder().decode
_write = json.JSONEncoder().encode


class DeclinedError(Exception):
    """We cannot run as this lightningd's plugin; the message tells it why."""


class MalformedCallError(Exception):
    """lightningd would not make such a call. The message never quotes the call: it may hold credentials."""


class Intake(Protocol):
    """Where arrivals go."""

    def takes(self, message_type: int) -> bool:
        """Return whether messages of this type are wanted; the others are answered and dropped."""

    def append(self, arrivals: Sequence[Arrival], answer: Callable[[bool], None]) -> None:
        """Keep arrivals, in order; call `answer` when they are safe (True) or lost (False)."""

    @property
    def is_full(self) -> bool:
        """Whether to bring no more for now."""

    async def has_room(self) -> None:
        """Wait until it is not full."""


class Channel(asyncio.Protocol):
    """The plugin channel to one lightningd.

    Args:
        manifest: answers all calls but those of the hook.
        on_init: called when lightningd has introduced itself, before it is answered; returns where arrivals
            go, and has put an INTERRUPTION there; or raises DeclinedError.
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
        self._name = secrets.token_hex(8)
        self._frames = Frames(MAX_CALL_SIZE)
        self._intake: Intake | None = None
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_alive(self) -> bool:
        """Whether the other end is there now: this sees its end before the event loop has come to it."""
        if self._reader is None or self._reader.is_closing():
            return False
        poll = select.poll()
        poll.register(self._reader.get_extra_info("socket").fileno(), select.POLLRDHUP | select.POLLHUP)
        return not poll.poll(0)

    def close(self) -> None:
        """End the channel; lightningd goes on without us."""
        for transport in (self._reader, self._writer):
            if transport is not None:
                transport.close()

    def write_to(self, writer: asyncio.WriteTransport) -> None:
        """Write to another transport than the one that is read (stdout beside stdin)."""
        self._writer = writer

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports have all the methods, but are not instances of asyncio's classes.
        self._reader = cast("asyncio.ReadTransport", transport)
        if self._writer is None:  # else there are two: stdin and stdout
            self._writer = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._reader = self._writer = None
        self._on_lost(self)

    def eof_received(self) -> None:
        """Do nothing: lightningd has ended, and the transport closes itself."""

    def data_received(self, data: bytes) -> None:
        """Take what lightningd wrote."""
        try:
            complete = self._frames.feed(data)
        except FrameError as error:
            log.error("cannot read the plugin channel; closing it", why=str(error))
            self.close()
            return
        arrivals: list[Arrival] = []
        hook_ids: list[Any] = []
        for frame in complete.split(END):
            if frame.strip():
                self._take(frame, arrivals, hook_ids)
        self._keep(arrivals, hook_ids)

    # Inside.

    def _take(self, frame: bytes, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        try:
            call = _read(frame.decode())
            method, request_id, params = call["method"], call.get("id"), call.get("params")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            log.error("invalid JSON-RPC on the plugin channel; skipping it", size=len(frame))
            return
        if method == HOOK and request_id is not None:
            hook_ids.append(request_id)  # first of all: nothing after this can keep it from its answer
        try:
            if method == HOOK:
                arrival = message_of(params, time.time_ns(), self._arrival_id(request_id))
                if self._intake is not None and self._intake.takes(wire.message_type(arrival.message)):
                    arrivals.append(arrival)
            elif method == "shutdown":
                self.close()  # lightningd waits for its plugins to leave
            elif request_id is None:
                if event := peer_event_of(str(method), params, time.time_ns()):
                    arrivals.append(event)
            else:
                self._start(self._answer(frame, str(method), request_id))
        except MalformedCallError as error:
            log.error("cannot read a call of lightningd", method=str(method)[:40], why=str(error))
        except Exception:
            log.exception("a call of lightningd failed here", method=str(method)[:40])

    def _arrival_id(self, request_id: Any) -> str:
        """Return an id that no other hook call has, of whatever channel; nothing if the call has no usable one."""
        if type(request_id) is str and len(request_id) <= _MAX_ID_SIZE:
            return f"{self._name}:{request_id}"
        return f"{self._name}#{request_id}" if type(request_id) is int else ""

    def _keep(self, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        """Keep what arrived, then let lightningd go on: by then the message is safe, or lost."""
        if not arrivals or self._intake is None:
            self._continue(hook_ids)
            return
        try:
            self._intake.append(arrivals, lambda _: self._continue(hook_ids))
        except Exception:
            log.exception("the inbox took nothing")
            self._continue(hook_ids)
            return
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
                    b'{"jsonrpc":"2.0","id":%b,"result":{"result":"continue"}}\n\n' % _write(one).encode()
                    for one in hook_ids
                )
            )

    async def _answer(self, frame: bytes, method: str, request_id: Any) -> None:
        try:
            answer = self._manifest.answer(frame)
            if method == "init" and self._manifest.init is not None:
                self._intake = await self._on_init(self, self._manifest.init)
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


def is_started_by_node() -> bool:
    """Return whether stdin and stdout lead to another program, as they do in a plugin of lightningd."""
    modes = [os.fstat(number).st_mode for number in (0, 1)]
    return all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


async def open_stdio(channel: Channel) -> None:
    """Speak the plugin protocol on stdin and stdout, and keep everything else off them.

    Whatever else in this process prints to stdout goes to stderr from now on: lightningd could take a stray
    line for an answer.
    """
    loop = asyncio.get_running_loop()
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, out)
    channel.write_to(writer)  # before anything is read, since what is read is answered
    await loop.connect_read_pipe(lambda: channel, os.fdopen(os.dup(0), "rb", buffering=0))


def message_of(params: object, time_ns: int, arrival_id: str = "") -> Arrival:
    """Read the parameters of a `custommsg` hook call.

    Args:
        params: the parameters, as JSON has them.
        time_ns: when it came, in nanoseconds since 1970, UTC.
        arrival_id: names the arrival.

    Raises:
        MalformedCallError: the peer or the message is missing or invalid.
    """
    if not isinstance(params, dict):
        raise MalformedCallError("a hook call without named parameters")
    message = _bytes(params.get("payload"), "payload")
    if not wire.MIN_MESSAGE_SIZE <= len(message) <= wire.MAX_MESSAGE_SIZE:
        raise MalformedCallError(f"a hook call with a payload of {len(message)} bytes")
    return Arrival(MESSAGE, time_ns, _peer_id(params.get("peer_id")), message, 0, b"", arrival_id)


def peer_event_of(method: str, params: object, time_ns: int) -> Arrival | None:
    """Read a `connect` or `disconnect` notification; None for any other.

    Since v23.08 its parameters are wrapped in the notification's name; before they were not.

    Raises:
        MalformedCallError: the peer is missing or invalid.
    """
    kind = _PEER_EVENTS.get(method)
    if kind is None:
        return None
    inner = params.get(method, params) if isinstance(params, dict) else None
    if not isinstance(inner, dict):
        raise MalformedCallError(f"a {method} notification without parameters")
    return Arrival(kind, time_ns, _peer_id(inner.get("id")))


def _peer_id(value: object) -> bytes:
    try:
        return wire.parse_node_id(_bytes(value, "peer"))
    except RelayError:
        raise MalformedCallError("a call whose peer is not a node id") from None


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedCallError(f"a call without {name}")
    try:
        return wire.unhex(value)
    except ValueError:
        raise MalformedCallError(f"a call whose {name} is not hex") from None


def _reply(request_id: Any, key: str, value: object) -> bytes:
    return _write({"jsonrpc": "2.0", "id": request_id, key: value}).encode() + END
