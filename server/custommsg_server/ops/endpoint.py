"""Where Prometheus asks: GET /metrics, on a port of its own and on threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from custommsg_server.domain.address import Address, ListenError

log = structlog.get_logger()


@asynccontextmanager
async def serving(registry: CollectorRegistry, address: Address) -> AsyncIterator[Address]:
    """Serve a registry for as long as the context lasts; yield the address, with the port that was chosen.

    Raises:
        ListenError: the address cannot be had.
    """
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise ListenError(
            f"Cannot serve metrics on {address}: {error.strerror}. Set metrics_listen to another address."
        ) from None
    served = Address(address.host, server.server_port)
    log.info("metrics served", url=f"http://{served}/metrics")
    try:
        yield served
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
