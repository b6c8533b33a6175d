"""Protects the plugin socket: only a process of lightningd's user that has read the token in the script may use it."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import structlog

log = structlog.get_logger()

TOKEN_TIME: Final = 10.0
"""Seconds that a connection has to send its token."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a unix socket, from the kernel (SO_PEERCRED of unix(7))."""

    pid: int
    uid: int


class Guard(asyncio.Protocol):
    """Checks the token of a connection to the plugin socket; then the channel takes over the connection.

    Args:
        token: the first line that the connection has to send.
        allowed: returns the users whose processes may connect.
        admit: makes the channel; called when the token is correct.
        refused: called if the process of another user connects.
        ended: called once when the guard has finished.
    """

    def __init__(
        self,
        token: str,
        allowed: Callable[[], frozenset[int]],
        admit: Callable[[Peer], asyncio.Protocol],
        refused: Callable[[Peer], None],
        ended: Callable[[Guard], None],
    ) -> None:
        self._line = token.encode() + b"\n"
        self._allowed = allowed
        self._admit = admit
        self._refused = refused
        self._ended = ended
        self._came = b""
        self._transport: asyncio.Transport | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check the user of the process."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of asyncio's
        if self._is_closed:  # before this was called
            self._transport.close()
        self._peer = _peer_of(self._transport)
        self._timer = asyncio.get_running_loop().call_later(TOKEN_TIME, self._refuse, "it sent no token")
        if self._peer.uid not in self._allowed():
            self.close()
            self._refused(self._peer)

    def data_received(self, data: bytes) -> None:
        """Check the first line; pass the rest to the channel."""
        self._came += data
        size = len(self._line)
        if len(self._came) < size and b"\n" not in self._came:
            return
        if not hmac.compare_digest(self._came[:size], self._line):
            self._refuse("its first line is not the current token")
            return
        self._timer.cancel()
        transport = self._transport
        assert transport is not None
        channel = self._admit(self._peer)
        transport.set_protocol(channel)
        channel.connection_made(transport)
        self._ended(self)
        if len(self._came) > size:
            channel.data_received(self._came[size:])

    def connection_lost(self, exc: Exception | None) -> None:
        """End the guard."""
        self._timer.cancel()
        self._ended(self)

    def close(self) -> None:
        """End the connection."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()

    def _refuse(self, why: str) -> None:
        # A script that was started before a restart of the gateway is refused, too.
        log.warning(
            "connection to the plugin socket refused", why=why, uid=self._peer.uid, pid=self._peer.pid
        )
        self.close()


def users_allowed(rpc_file: Path) -> frozenset[int]:
    """Return the users who may connect: our own, root, and the owner of lightningd's JSON-RPC socket."""
    users = {os.geteuid(), 0}
    with suppress(OSError):  # lightningd may not have created it yet
        users.add(rpc_file.stat().st_uid)
    return frozenset(users)


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    # uvloop's socket has no getsockopt.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)
