"""grpc.health.v1: "" is the process; the other services are SERVING only while the node answers.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """The package's servicer, with an error text for unknown services."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = services

    async def Check(  # noqa: N802 -- gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        if request.service and request.service not in self._services:
            known = ", ".join(self._services)
            text = f'This gateway has no service {request.service[:100]!r}. Ask for "", the process, or one of {known}.'
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return answer


class Health:
    """Answers health checks; the services in `ready` need the node."""

    services = (health.SERVICE_NAME,)

    def __init__(self, ready: Sequence[str]) -> None:
        self._servicer = _Servicer(ready)
        self._ready = ready
        self._tasks: set[asyncio.Task[None]] = set()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def node_changed(self, is_up: bool) -> None:
        """Apply the state of the link to the node."""
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
