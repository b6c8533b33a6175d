"""How long a call may take: the caller's deadline, or ours if it has none."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Turns callers' deadlines into times of the loop's clock.

    Args:
        longest: seconds that a call may take, whatever its caller allows.
    """

    longest: float

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        """Return when to give up on a call, in seconds of the running loop's clock.

        That is a little before the caller's own deadline: at its deadline gRPC ends the call without us, and
        the caller would not learn whether the message was written.
        """
        remaining = _remaining(context)
        allowed = self.longest if remaining is None else min(remaining, self.longest)
        return asyncio.get_running_loop().time() + allowed - min(0.1, allowed / 10)

    def of_stream(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        """Return when to give up on a stream, which may last as long as its caller allows: infinity, often."""
        remaining = _remaining(context)
        if remaining is None:
            return math.inf
        return asyncio.get_running_loop().time() + remaining - min(0.1, remaining / 10)


def _remaining(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    remaining: float | None = context.time_remaining()
    return remaining
