"""The gRPC server: services, listeners, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import grpc
import structlog

from custommsg.v1 import custommsg_pb2, custommsg_pb2_grpc
from custommsg_server.api.call import Observer
from custommsg_server.api.dialects.serving import Dialects
from custommsg_server.api.doors import Doors
from custommsg_server.api.interceptor import CallInterceptor
from custommsg_server.api.listen import bind
from custommsg_server.api.reflection import add_reflection
from custommsg_server.api.service import CustomMsgService
from custommsg_server.domain.address import Address
from custommsg_server.ops import health as health_module
from custommsg_server.ops.health import Health

from grpc_health.v1 import health_pb2_grpc  # isort: skip

log = structlog.get_logger()

SERVICE: Final[str] = custommsg_pb2.DESCRIPTOR.services_by_name["CustomMsgService"].full_name


SETTLE_TIME: Final = 0.1
"""Seconds without a new call after which a gateway that refuses them stops listening."""
SETTLE_MOST: Final = 2.0
"""Seconds that callers have to notice that they are refused, at most."""


class GrpcServer:
    """Serves the core over gRPC.

    Args:
        service: the servicer of the contract.
        dialects: foreign contracts to serve beside it.
        doors: how callers come in.
        observers: are told of each call.
    """

    def __init__(
        self, service: CustomMsgService, dialects: Dialects, doors: Doors, observers: Sequence[Observer] = ()
    ) -> None:
        self._doors = doors
        self._calls = CallInterceptor(observers, doors.access)
        self._server = grpc.aio.server(interceptors=[self._calls], options=doors.options)
        services = [SERVICE, *dialects.services]
        self.health = Health(services)
        custommsg_pb2_grpc.add_CustomMsgServiceServicer_to_server(service, self._server)
        dialects.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._server)
        if doors.reflection:
            add_reflection(self._server, [*services, health_module.SERVICE])

    async def start(self, addresses: Sequence[Address]) -> list[Address]:
        """Start listening; return the addresses with the ports that were chosen.

        Raises:
            ListenError: an address cannot be had.
        """
        bound = [bind(self._server, address, self._doors.tls) for address in addresses]
        await self._server.start()
        return bound

    async def drain(self, seconds: float) -> None:
        """Take no new calls, finish those in flight, and stop.

        Args:
            seconds: how long calls in flight may take.
        """
        await self.health.drain()
        try:
            async with asyncio.timeout(seconds):
                await self._calls.drain()
        except TimeoutError:
            log.warning(
                "calls were still in flight at the end of the drain time", calls=self._calls.in_flight
            )
        else:
            await self._settle()
        await self._server.stop(None)

    async def _settle(self) -> None:
        # Calls that gRPC has accepted and not yet handed to us would end as CANCELLED, and nobody could tell
        # that nothing was sent. As long as the server runs each gets its answer: GATEWAY_STOPPING.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_MOST):
                begun = -1
                while begun != self._calls.begun:
                    begun = self._calls.begun
                    await asyncio.sleep(SETTLE_TIME)
