"""Our side of the plugin protocol. The answer to a hook call is always `continue`.

lightningd exits on any other answer, even on an error. So the answer depends on nothing but the id of the hook call,
and no exception can change that.

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
"""The maximum size of a call in bytes; a hook call with the largest message has 132 kB."""
_MAX_ID_SIZE: Final = 100
"""The maximum length of the id of a hook call that is used as the id of an arrival; lightningd's have about 30."""
_PEER_EVENTS: Final = {"connect": Kind.CONNECTED, "disconnect": Kind.DISCONNECTED}
# Like json.loads and json.dumps, which would check their options for each message.
_read = json.JSONDecoder().decode
_write = json.JSONEncoder().encode


class DeclinedError(Exception):
    """The gateway cannot run as a plugin of this lightningd; the message says why."""


class MalformedCallError(Exception):
    """A call is malformed. The message never quotes it, since it may contain credentials."""


class Intake(Protocol):
    """Stores arrivals."""

    def takes(self, message_type: int) -> bool:
        """Return whether to store messages of this type; other messages are dropped."""

    def append(self, arrivals: Sequence[Arrival], answer: Callable[[bool], None]) -> None:
        """Store arrivals in order; call `answer` with whether they were stored."""

    @property
    def is_full(self) -> bool:
        """Whether to stop reading for now."""

    async def has_room(self) -> None:
        """Wait until it is not full."""


class Channel(asyncio.Protocol):
    """The plugin channel to one lightningd.

    Args:
        manifest: answers all calls but those of the hook.
        on_init: called with the `init` of lightningd, before it is answered. Returns where to store arrivals, after an
            INTERRUPTION; or raises DeclinedError.
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
        """Whether the other end is connected. This detects its end before the event loop does."""
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
        """Write to another transport than the one that is read: stdout and stdin."""
        self._writer = writer

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # uvloop's transports have all the methods, but are not instances of asyncio's classes.
        self._reader = cast("asyncio.ReadTransport", transport)
        if self._writer is None:  # else there are two: stdin and stdout
            self._writer = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Inform the owner."""
        self._reader = self._writer = None
        self._on_lost(self)

    def eof_received(self) -> None:
        """Do nothing: lightningd has ended, and the transport closes itself."""

    def data_received(self, data: bytes) -> None:
        """Process calls of lightningd."""
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

    def _take(self, frame: bytes, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        try:
            call = _read(frame.decode())
            method, request_id, params = call["method"], call.get("id"), call.get("params")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            log.error("invalid JSON-RPC on the plugin channel; skipping it", size=len(frame))
            return
        if method == HOOK and request_id is not None:
            hook_ids.append(request_id)  # first, so that nothing after this can prevent the answer
        try:
            if method == HOOK:
                arrival = message_of(params, time.time_ns(), self._arrival_id(request_id))
                if self._intake is not None and self._intake.takes(wire.message_type(arrival.message)):
                    arrivals.append(arrival)
            elif method == "shutdown":
                self.close()  # lightningd waits until its plugins have ended
            elif request_id is None:
                if event := peer_event_of(str(method), params, time.time_ns()):
                    arrivals.append(event)
            else:
                self._start(self._answer(frame, str(method), request_id))
        except MalformedCallError as error:
            log.error("malformed call of lightningd; skipping it", method=str(method)[:40], why=str(error))
        except Exception:
            log.exception(
                "a call of lightningd failed because of a bug; please report it", method=str(method)[:40]
            )

    def _arrival_id(self, request_id: Any) -> str:
        """Return a unique id for a hook call, across all channels; empty if the call has no usable id."""
        if type(request_id) is str and len(request_id) <= _MAX_ID_SIZE:
            return f"{self._name}:{request_id}"
        return f"{self._name}#{request_id}" if type(request_id) is int else ""

    def _keep(self, arrivals: list[Arrival], hook_ids: list[Any]) -> None:
        """Store arrivals, then answer the hook calls: by then the messages are stored or lost."""
        if not arrivals or self._intake is None:
            self._continue(hook_ids)
            return
        try:
            self._intake.append(arrivals, lambda _: self._continue(hook_ids))
        except Exception:
            log.exception("messages were lost because of a bug; please report it")
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
            log.exception(
                "a call of lightningd failed because of a bug; please report it", method=method[:40]
            )
            answer = _reply(request_id, "error", {"code": -32603, "message": "the gateway's log says why"})
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(answer)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def is_started_by_node() -> bool:
    """Return whether stdin and stdout are pipes or sockets, as in a plugin of lightningd."""
    modes = [os.fstat(number).st_mode for number in (0, 1)]
    return all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


async def open_stdio(channel: Channel) -> None:
    """Use stdin and stdout for the plugin protocol.

    All other output to stdout goes to stderr from now on: lightningd could take it for an answer.
    """
    loop = asyncio.get_running_loop()
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, out)
    channel.write_to(writer)  # before anything is read, since calls are answered at once
    await loop.connect_read_pipe(lambda: channel, os.fdopen(os.dup(0), "rb", buffering=0))


def message_of(params: object, time_ns: int, arrival_id: str = "") -> Arrival:
    """Read the parameters of a `custommsg` hook call.

    Args:
        params: the parameters, as JSON has them.
        time_ns: when it arrived, in nanoseconds since 1970, UTC.
        arrival_id: the id of the arrival.

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

    Since v23.08 the parameters are in an object with the name of the notification.

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
