"""Additions to the embedded node: a journal of hook calls, and lightningd's rate limit.

lightningd reads 1,000,000 bytes a second from one peer (`incoming_stream_limit` of connectd), framing included; the
embedded node has no such limit, and neither have the peers.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from custommsg_testing.devnode.node import DevNode
from custommsg_testing.devnode.peer import Peer
from custommsg_testing.devnode.plugins import Plugins

RECORD: Final = struct.Struct(">?Qd")
"""A record of the journal: whether the call was answered or begun, the number that follows the type of its message, and
the time (monotonic, which all processes share)."""
_NUMBER: Final = 8
"""Bytes of that number."""
_FRAMING: Final = 34
"""Bytes that the transport adds to a message."""
_PATIENCE: Final = 0.05
"""The burst of a peer in seconds of its rate."""


def install(journal: Path, peer_id: bytes, rate: float) -> None:
    """Patch the process before the node is made.

    Args:
        journal: gets the time of each hook call with a message of the peer, and of its answer, at once; it survives a
            kill of this process.
        peer_id: the peer; its messages begin with type and number.
        rate: bytes a second to read from one peer; 0: no limit.
    """
    _keep_journal(os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), peer_id)
    if rate:
        _throttle(rate)


def read_journal(journal: Path) -> tuple[dict[int, float], list[int]]:
    """Return when the hook was called for each number, and the numbers whose call was answered."""
    content = journal.read_bytes() if journal.exists() else b""
    called: dict[int, float] = {}
    answered: list[int] = []
    for is_answer, number, when in RECORD.iter_unpack(content[: len(content) - len(content) % RECORD.size]):
        if is_answer:
            answered.append(number)
        else:
            called[number] = when
    return called, answered


def _keep_journal(file: int, peer_id: bytes) -> None:
    call_hook = Plugins._call_hook
    its = b'"peer_id":"%b"}' % peer_id.hex().encode()
    payload = len(b'{"payload":"') + 4

    def record(self: Plugins, chain: list[Any], params: bytes) -> None:
        if not chain or not params.endswith(its):
            call_hook(self, chain, params)
            return
        number = int(params[payload : payload + 2 * _NUMBER], 16)

        def answered(response: Any) -> None:
            if response is not None:
                os.write(file, RECORD.pack(True, number, time.monotonic()))
            self._hook_answered(chain, params, response)

        os.write(file, RECORD.pack(False, number, time.monotonic()))
        chain[0].request("custommsg", params, answered)

    Plugins._call_hook = record  # type: ignore[method-assign]


def _throttle(rate: float) -> None:
    take = DevNode._message
    free_at: dict[bytes, float] = defaultdict(float)

    def take_slowly(self: DevNode, peer: Peer, message: bytes) -> Awaitable[None] | None:
        waiting, now = take(self, peer, message), time.monotonic()
        free_at[peer.id] = max(free_at[peer.id], now) + (len(message) + _FRAMING) / rate
        ahead = free_at[peer.id] - now
        return waiting if ahead < _PATIENCE else _both(waiting, ahead)

    DevNode._message = take_slowly  # type: ignore[method-assign]


async def _both(waiting: Awaitable[None] | None, seconds: float) -> None:
    if waiting is not None:
        await waiting
    await asyncio.sleep(seconds)
