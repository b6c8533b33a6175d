"""The messages that all loads send: the same bytes, to the same peers in turn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Final

from benchmarks.job import Job

TYPE: Final = 37913
"""The type of all messages: LSPS0, which a node passes on."""


def message_of(job: Job) -> bytes:
    """Return the message of a job: its type, then bytes that do not matter."""
    filling = bytes(range(256)) * (job.size // 256 + 1)
    return TYPE.to_bytes(2, "big") + filling[: job.size - 2]


def peers_of(job: Job) -> Iterator[bytes]:
    """Return the peers of a job, one after the other, without end."""
    return cycle([bytes.fromhex(peer) for peer in job.peers])
