"""The composition root: the only place that knows all rooms. Start, drain, stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from custommsg_server.config import Settings
from custommsg_server.node.lightningd import Lightningd
from custommsg_server.node.link import LinkOptions
from custommsg_server.relay import Relay
from custommsg_server.rpc.deadline import Deadlines
from custommsg_server.rpc.listen import Address
from custommsg_server.rpc.server import GrpcServer
from custommsg_server.rpc.service import CustomMsgService

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    addresses: list[Address]
    """Where it listens."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """Run a gateway for as long as the context lasts, then drain it.

    Raises:
        ListenError: an address cannot be had.
    """
    node = Lightningd(
        settings.socket_path,
        LinkOptions(
            window=settings.node_window,
            max_waiting=settings.node_max_waiting,
            probe_interval=settings.node_probe_interval,
            reply_timeout=settings.node_reply_timeout,
        ),
    )
    service = CustomMsgService(Relay(node), Deadlines(settings.call_timeout), version("custommsg"))
    server = GrpcServer(service)
    node.watch(server.health.node_changed)
    addresses = await server.start(settings.addresses)
    link = asyncio.create_task(node.run())
    log.info("gateway listening", addresses=[str(a) for a in addresses], rpc_file=str(settings.socket_path))
    try:
        yield Gateway(addresses)
    finally:
        log.info("gateway draining", seconds=settings.drain_time)
        await server.drain(settings.drain_time)
        link.cancel()
        with suppress(asyncio.CancelledError):
            await link
        log.info("gateway stopped")


async def serve(settings: Settings) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings):
        await stop.wait()
