"""The gRPC server: services, listeners, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import grpc
import structlog

from custommsg_server.api.calls import Calls
from custommsg_server.api.listen import bind
from custommsg_server.domain.address import Address

if TYPE_CHECKING:
    from custommsg_server.access.tls import Tls

log = structlog.get_logger()

SETTLE_TIME: Final = 0.1
"""During the drain, seconds without a new call until the gateway stops listening."""
SETTLE_MOST: Final = 2.0
"""The maximum of that time in seconds."""
MAX_STREAMS: Final = 1000
"""Calls in progress on one connection; more wait in the client."""
MAX_PENDING: Final = 1000
"""Calls that may wait for the event loop; of more than that some are refused, of three times as many all."""
HANDSHAKE_TIME: Final = 10.0
"""Seconds for the handshake of a connection; a silent one is closed then."""
AGE_GRACE: Final = 60.0
"""Seconds that calls may continue after the maximum age of their connection: longer than unary calls take."""


class Servicer(Protocol):
    """A set of services."""

    @property
    def services(self) -> Sequence[str]:
        """The full names of its services."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of connections."""

    tls: Tls | None = None
    """For TCP; None: without TLS."""
    max_connections: int = 1000
    max_age: float = 0.0
    """The maximum age of a connection in seconds; 0 is no maximum."""

    def to_grpc(self) -> list[tuple[str, int]]:
        """Return gRPC's options: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
        options = [
            # Without this a second gateway could bind the same port and silently take half of the calls.
            ("grpc.so_reuseport", 0),
            # A message has 64 kB at most, twice as much in hex; a request of a stream has several.
            ("grpc.max_receive_message_length", 4 << 20),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            # Each stream may buffer 64 kB before we read it. With BDP probes, 1,000 streams took 1.2 GB.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            # Calls that wait until Python takes them, up to 72 kB each. Above the first number gRPC ends some as
            # CANCELLED, above the second all; it cannot give a reason. Without this they would fill the memory.
            ("grpc.server.max_pending_requests", MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", 3 * MAX_PENDING),
            ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIME * 1000)),
            # A rune and a trace context take about 1 kB. Calls with more may be refused, above the second limit always.
            ("grpc.max_metadata_size", 8 << 10),
            ("grpc.absolute_max_metadata_size", 16 << 10),
            # Our client sends a ping every 20 s; clients that ping more often than every 10 s are disconnected.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 2),
            # Finds subscribers whose connection broke without being closed.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        if self.max_age:
            options += [
                ("grpc.max_connection_age_ms", int(self.max_age * 1000)),
                ("grpc.max_connection_age_grace_ms", int(AGE_GRACE * 1000)),
            ]
        return options


class GrpcServer:
    """Serves servicers over gRPC."""

    def __init__(self, servicers: Sequence[Servicer], calls: Calls, options: ServerOptions) -> None:
        self._options = options
        self._calls = calls
        self._server = grpc.aio.server(options=options.to_grpc())
        for servicer in servicers:
            servicer.add_to(cast("grpc.aio.Server", calls))
        self._server.add_generic_rpc_handlers((calls,))

    async def start(self, addresses: Sequence[Address]) -> list[Address]:
        """Start listening; return the addresses with the chosen ports.

        Raises:
            ListenError: an address is in use, or not one of this machine.
        """
        bound = [bind(self._server, address, self._options.tls) for address in addresses]
        await self._server.start()
        return bound

    async def drain(self, seconds: float) -> None:
        """Accept no new calls, give those in progress some seconds to finish, and stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._calls.drain()
        except TimeoutError:
            log.warning(
                "calls were still in progress at the end of the drain time", calls=self._calls.in_flight
            )
        else:
            await self._settle()
        await self._server.stop(None)

    async def _settle(self) -> None:
        # Calls that gRPC has accepted and not yet passed to us would end with CANCELLED, which does not say that
        # nothing was sent. While the server runs, each of them gets GATEWAY_STOPPING.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_MOST):
                begun = -1
                while begun != self._calls.begun:
                    begun = self._calls.begun
                    await asyncio.sleep(SETTLE_TIME)
