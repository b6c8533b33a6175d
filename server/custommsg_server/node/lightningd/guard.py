"""Decides who may speak on the plugin socket: a process of lightningd's user that has read the token in the script."""

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
    """The process at the other end of a unix socket, as the kernel says it (SO_PEERCRED of unix(7))."""

    pid: int
    uid: int


class Guard(asyncio.Protocol):
    """Holds one connection to the plugin socket until it has shown the token; then the channel takes it over.

    Args:
        token: the first line that the connection has to send.
        allowed: returns the users whose processes may connect.
        admit: makes the channel; called once the token is there.
        refused: called with the peer if another user's process has connected.
        ended: called once, when the guard has nothing more to do.
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
        """Look who connects."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of asyncio's
        if self._is_closed:  # before asyncio came to this
            self._transport.close()
        self._peer = _peer_of(self._transport)
        self._timer = asyncio.get_running_loop().call_later(TOKEN_TIME, self._refuse, "it sent no token")
        if self._peer.uid not in self._allowed():
            self.close()
            self._refused(self._peer)

    def data_received(self, data: bytes) -> None:
        """Compare the first line; hand over to the channel what follows it."""
        self._came += data
        size = len(self._line)
        if len(self._came) < size and b"\n" not in self._came:
            return
        if not hmac.compare_digest(self._came[:size], self._line):
            self._refuse("its first line is not the token of this start")
            return
        self._timer.cancel()
        transport = self._transport
        assert transport is not None  # it has brought the data
        channel = self._admit(self._peer)
        transport.set_protocol(channel)
        channel.connection_made(transport)
        self._ended(self)
        if len(self._came) > size:
            channel.data_received(self._came[size:])

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._timer.cancel()
        self._ended(self)

    def close(self) -> None:
        """End the connection."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()

    def _refuse(self, why: str) -> None:
        # An old copy of the script, from before a restart of the gateway, ends here, too.
        log.warning(
            "connection to the plugin socket refused", why=why, uid=self._peer.uid, pid=self._peer.pid
        )
        self.close()


def users_allowed(rpc_file: Path) -> frozenset[int]:
    """Return the users who may connect: our own, root, and the owner of lightningd's JSON-RPC socket."""
    users = {os.geteuid(), 0}
    with suppress(OSError):  # lightningd may not have made it yet
        users.add(rpc_file.stat().st_uid)
    return frozenset(users)


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    # uvloop's socket has no getsockopt.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)
