"""grpc.health.v1: "" is the process, the services are ready only while the node answers.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from grpc_health.v1 import health, health_pb2

SERVICE: Final[str] = health.SERVICE_NAME


class Health:
    """What the gateway says of its health.

    Args:
        services: the full names of the services that need the node.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()

    def node_changed(self, is_up: bool) -> None:
        """Take the state of the link to the node."""
        task = asyncio.create_task(self._set(is_up))
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Say for good that nothing is served any more."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, is_up: bool) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING if is_up else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in self._services:
            await self.servicer.set(service, status)
