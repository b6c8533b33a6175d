"""What lightningd says on the plugin channel, read: pure functions.

The protocol is JSON-RPC 2.0, each message ended by two newlines
(https://docs.corelightning.org/docs/a-day-in-the-life-of-a-plugin).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from custommsg_server.domain import wire
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.events import Arrival, Kind

MAX_FRAME_SIZE: Final = 16 << 20
"""Bytes: far beyond what lightningd writes (a hook call with the largest message has 132 kB)."""

_PEER_EVENTS: Final = {"connect": Kind.CONNECTED, "disconnect": Kind.DISCONNECTED}


class MalformedCallError(Exception):
    """What came is not what lightningd would say. The message never quotes it: it may hold credentials."""


class Frames:
    """Cuts a stream of bytes into the messages in it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; return the messages that are complete now.

        Raises:
            MalformedCallError: a message has no end.
        """
        buffer = self._buffer
        buffer += data
        end = buffer.rfind(b"\n\n", self._scanned)
        if end < 0:
            self._scanned = max(0, len(buffer) - 1)
            if len(buffer) > MAX_FRAME_SIZE:
                raise MalformedCallError(f"a message without an end within {MAX_FRAME_SIZE:,} bytes")
            return []
        complete = bytes(buffer[:end])
        del buffer[: end + 2]
        self._scanned = 0
        return [frame for frame in complete.split(b"\n\n") if frame.strip()]


def message_of(params: object, time_ns: int) -> Arrival:
    """Read the parameters of a `custommsg` hook call.

    Raises:
        MalformedCallError: they hold no peer or no message.
    """
    if not isinstance(params, Mapping):
        raise MalformedCallError("a hook call without named parameters")
    message = _bytes(params.get("payload"), "payload")
    if not wire.MIN_MESSAGE_SIZE <= len(message) <= wire.MAX_MESSAGE_SIZE:
        raise MalformedCallError(f"a hook call with a payload of {len(message)} bytes")
    return Arrival(Kind.MESSAGE, time_ns, _node_id(params.get("peer_id")), message)


def peer_event_of(method: str, params: object, time_ns: int) -> Arrival | None:
    """Read a `connect` or `disconnect` notification; None for any other.

    Since v23.08 its parameters are wrapped in the notification's name; before they were not.

    Raises:
        MalformedCallError: it names no peer.
    """
    kind = _PEER_EVENTS.get(method)
    if kind is None:
        return None
    inner: Any = params.get(method, params) if isinstance(params, Mapping) else None
    if not isinstance(inner, Mapping):
        raise MalformedCallError(f"a {method} notification without parameters")
    return Arrival(kind, time_ns, _node_id(inner.get("id")))


def _node_id(value: object) -> bytes:
    try:
        return wire.parse_node_id(_bytes(value, "peer"))
    except RelayError:
        raise MalformedCallError("a call whose peer is no node id") from None


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedCallError(f"a call without {name}")
    try:
        return wire.unhex(value)
    except ValueError:
        raise MalformedCallError(f"a call whose {name} is no hex") from None
