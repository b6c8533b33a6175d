"""grpc.health.v1: "" is the process; the other services are ready only while the node answers.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Health:
    """Answers health checks.

    Args:
        ready: the full names of the services that need the node.
    """

    services = (health.SERVICE_NAME,)

    def __init__(self, ready: Sequence[str]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._ready = ready
        self._tasks: set[asyncio.Task[None]] = set()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def node_changed(self, is_up: bool) -> None:
        """Take the state of the link to the node."""
        task = asyncio.create_task(self._set(is_up))
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Answer NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()

    async def _set(self, is_up: bool) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING if is_up else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in self._ready:
            await self._servicer.set(service, status)
