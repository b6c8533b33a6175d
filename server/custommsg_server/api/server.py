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
"""Seconds without a new call after which a gateway that refuses them stops listening."""
SETTLE_MOST: Final = 2.0
"""Seconds that callers have to notice that they are refused, at most."""
MAX_STREAMS: Final = 1000
"""Calls at once on one connection: more wait in their client."""
HANDSHAKE_TIME: Final = 10.0
"""Seconds for a connection to say what it wants: who opens it and is silent costs a socket so long."""
AGE_GRACE: Final = 60.0
"""Seconds that calls on a connection may go on after its age has come: longer than any but a stream should take."""


class Servicer(Protocol):
    """What the server serves."""

    @property
    def services(self) -> Sequence[str]:
        """The full names of its services."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the server allows on its connections."""

    tls: Tls | None = None
    """For what comes over TCP; None: in the clear."""
    max_connections: int = 1000
    max_age: float = 0.0
    """Seconds that a connection may last; 0 is for ever."""

    def to_grpc(self) -> list[tuple[str, int]]:
        """Return gRPC's options: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
        options = [
            # Without this a second gateway could bind the same port and silently take half of the calls.
            ("grpc.so_reuseport", 0),
            # A request is a message of 64 kB at most, twice as long in hex; a stream's holds some of them.
            ("grpc.max_receive_message_length", 4 << 20),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            # Each stream may buffer 64 kB before we read. With probes for more, 1,000 streams took 1.2 GB.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIME * 1000)),
            # A rune and a trace context take some 1 kB; beyond the second bound a call is refused for sure.
            ("grpc.max_metadata_size", 8 << 10),
            ("grpc.absolute_max_metadata_size", 16 << 10),
            # Our client asks every 20 s whether we live; who asks more often than every 10 s is disconnected.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 2),
            # Nothing else would ever find a subscriber that is gone without a word.
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
    """Serves the core over gRPC.

    Args:
        servicers: what it serves.
        calls: what each call passes through.
        options: what it allows on its connections.
    """

    def __init__(self, servicers: Sequence[Servicer], calls: Calls, options: ServerOptions) -> None:
        self._options = options
        self._calls = calls
        self._server = grpc.aio.server(options=options.to_grpc())
        for servicer in servicers:
            servicer.add_to(cast("grpc.aio.Server", calls))
        self._server.add_generic_rpc_handlers((calls,))

    async def start(self, addresses: Sequence[Address]) -> list[Address]:
        """Start listening; return the addresses with the ports that were chosen.

        Raises:
            ListenError: an address is in use, or not one of this machine.
        """
        bound = [bind(self._server, address, self._options.tls) for address in addresses]
        await self._server.start()
        return bound

    async def drain(self, seconds: float) -> None:
        """Take no new calls, finish those in progress, and stop.

        Args:
            seconds: how long calls in progress may take.
        """
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
        # Calls that gRPC has accepted and not yet handed to us would end as CANCELLED, and nobody could tell
        # that nothing was sent. As long as the server runs each gets its answer: GATEWAY_STOPPING.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_MOST):
                begun = -1
                while begun != self._calls.begun:
                    begun = self._calls.begun
                    await asyncio.sleep(SETTLE_TIME)
