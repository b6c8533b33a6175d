"""The composition root: makes all parts and connects them. Start, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import structlog

from custommsg_server.access.access import Access
from custommsg_server.access.accounts import Accounts, CallerLimits
from custommsg_server.access.runes import Runes
from custommsg_server.api.calls import Calls
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.serving import servicers
from custommsg_server.api.outbox_convert import Expiry
from custommsg_server.api.reflection import Reflection
from custommsg_server.api.server import GrpcServer, ServerOptions, Servicer
from custommsg_server.api.service import CustomMsgService
from custommsg_server.core.delivery import Delivery
from custommsg_server.core.intake import Intake, keep_more_of_channels
from custommsg_server.core.limits import PeerLimits, Rate
from custommsg_server.core.mailbox import Mailbox
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.core.once import Once
from custommsg_server.core.queueing import Queueing
from custommsg_server.core.relay import Relay
from custommsg_server.domain.address import Address, ListenError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.sqlite.inbox import SqliteInbox, SqliteOptions
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.node.lightningd.attach import Attachment, Paths
from custommsg_server.node.lightningd.channel import Channel, DeclinedError, open_stdio
from custommsg_server.node.lightningd.link import LinkOptions
from custommsg_server.node.lightningd.manifest import Init, Manifest
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.ops import plugin_settings
from custommsg_server.ops.health import Health
from custommsg_server.ops.process import on_hangup
from custommsg_server.ops.sources import Sources
from custommsg_server.ops.telemetry import Telemetry
from custommsg_server.outbox.port import Bounds
from custommsg_server.outbox.sqlite.outbox import SqliteOutbox
from custommsg_server.settings import Settings, SettingsError

log = structlog.get_logger()

VERSION: Final = version("custommsg-server")
_CHANNELS_INTERVAL: Final = 300.0
"""Seconds between two requests to the node for the peers with channels."""


class PartEndedError(Exception):
    """A part of the gateway has ended although it should run until the gateway stops; the log has the error."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    addresses: list[Address]
    """Its addresses."""
    metrics: Address | None
    """The address of its metrics; None: it serves none."""
    node: Lightningd
    intake: Intake
    """Stores what peers send."""
    attachment: Attachment | None
    """Attaches lightningd; None if lightningd has started the gateway, or nothing is received."""
    reload: Callable[[Settings], None]
    """Applies the settings that may change while it runs."""

    async def ready(self) -> None:
        """Wait until the node answers and, if there is an attachment, is attached."""
        up = asyncio.Event()
        self.node.watch(lambda is_up: up.set() if is_up else None)
        await up.wait()
        if self.attachment is not None:
            await self.attachment.attached()


@asynccontextmanager
async def running(
    settings: Settings, started_by_node: bool = False, part_ended: asyncio.Future[str] | None = None
) -> AsyncIterator[Gateway]:
    """Run a gateway for as long as the context lasts, then drain it.

    Args:
        settings: its settings.
        started_by_node: lightningd has started the gateway as its plugin, so they are connected already.
        part_ended: gets the name of a part that has ended early, which is a bug.

    Raises:
        ListenError: an address cannot be used.
    """
    async with AsyncExitStack() as stack:
        node = _node(settings)
        inbox = await stack.enter_async_context(_inbox(settings))
        outbox = await stack.enter_async_context(_outbox(settings))
        telemetry = Telemetry(settings, VERSION)
        intake = Intake(
            inbox,
            settings.received_types,
            lambda: node.info.node_id if node.info else b"",
            watcher=telemetry.metrics,
            rate=_received_rate(settings),
        )
        attachment = None if started_by_node or not settings.receive else _attachment(settings, node, intake)

        def is_attached() -> bool:
            return started_by_node or (attachment is not None and attachment.is_attached)

        peer_limits, accounts = PeerLimits(_peer_rate(settings)), Accounts(_caller_limits(settings))
        memory = MemoryBudget(_memory(settings))
        runes = Runes(node, settings.rune_check_interval)
        access = Access(None if settings.insecure else settings.require, runes, accounts)
        once = Once(outbox)
        delivery = Delivery(outbox, node, peer_limits, access, inbox, is_attached)
        intake.watch_peers(delivery.peers_changed)
        relay = Relay(node, peer_limits, memory, once)
        mailbox = Mailbox(inbox, is_attached, memory)
        queueing = Queueing(outbox, memory, delivery.enqueued)
        calls = Calls(access, settings.call_timeout, telemetry.observers)
        served, health = _servicers(settings, relay, mailbox, queueing)
        server = GrpcServer(served, calls, _server_options(settings))
        node.watch(health.node_changed)
        metrics = await stack.enter_async_context(
            telemetry.observing(
                Sources(
                    node,
                    inbox,
                    settings.data_path,
                    intake,
                    is_attached,
                    memory,
                    calls.open_streams,
                    outbox,
                    delivery,
                )
            )
        )
        addresses = await server.start(settings.addresses)
        tasks = [_watched("node link", node.run(), part_ended), _watched("inbox", inbox.run(), part_ended)]
        tasks.append(_watched("outbox", delivery.run(), part_ended))
        if settings.receive:
            channels = keep_more_of_channels(node, inbox, _CHANNELS_INTERVAL)
            tasks.append(_watched("list of channels", channels, part_ended))
        if attachment is not None:
            node.watch(attachment.node_changed)
            tasks.append(_watched("plugin", attachment.run(), part_ended))

        def reload(settings: Settings) -> None:
            telemetry.reload(settings)
            peer_limits.set(_peer_rate(settings))
            intake.set(_received_rate(settings))
            outbox.set(_outbox_bounds(settings))
            accounts.set(_caller_limits(settings))
            runes.set(settings.rune_check_interval)
            memory.set(_memory(settings))

        log.info(
            "gateway listening", addresses=[str(a) for a in addresses], rpc_file=str(settings.socket_path)
        )
        try:
            yield Gateway(addresses, metrics, node, intake, attachment, reload)
        finally:
            log.info("gateway draining", seconds=settings.drain_time)
            await health.drain()
            await server.drain(settings.drain_time)
            await delivery.stop(settings.drain_time)
            await once.finish(settings.drain_time)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            intake.close()
            log.info("gateway stopped")


async def serve(settings: Settings, stop: asyncio.Event, reread: Callable[[], Settings]) -> None:
    """Run a gateway until `stop`; at SIGHUP, apply the settings that `reread` returns.

    Raises:
        PartEndedError: a part has ended; the gateway has drained and stopped.
    """
    part_ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with running(settings, part_ended=part_ended) as gateway:
        _spare_the_collector()
        with on_hangup(settings, reread, gateway.reload):
            await _until(stop, part_ended)


async def serve_as_plugin(base: Settings, stop: asyncio.Event) -> None:
    """Run a gateway that lightningd has started, until `stop` or until lightningd closes the channel.

    Args:
        base: the settings from the environment and the file; lightningd's options override them.
        stop: set it to end.

    Raises:
        PartEndedError: a part has ended; the gateway has drained and stopped.
    """
    async with AsyncExitStack() as stack:
        part_ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def start(channel: Channel, init: Init) -> Intake:
            try:
                settings = plugin_settings.load(init)
                gateway = await stack.enter_async_context(
                    running(settings, started_by_node=True, part_ended=part_ended)
                )
            except (SettingsError, ListenError) as error:
                stop.set()
                raise DeclinedError(str(error)) from None
            _spare_the_collector()
            gateway.intake.append([Arrival(Kind.INTERRUPTION, time.time_ns())])
            return gateway.intake

        # lightningd sets this variable for the plugins that it starts.
        manifest = plugin_settings.manifest(base, os.environ.get("LIGHTNINGD_VERSION", ""))
        await open_stdio(Channel(Manifest(manifest), start, lambda channel: stop.set()))
        await _until(stop, part_ended)


def _spare_the_collector() -> None:
    """Have garbage collections leave out what was made until now: they stop everything, a full one for 50 ms."""
    gc.collect()
    gc.freeze()


async def _until(stop: asyncio.Event, part_ended: asyncio.Future[str]) -> None:
    """Wait for `stop`, or for the end of a part."""
    part_ended.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if part_ended.done():
        raise PartEndedError(part_ended.result())


def _watched(
    part: str, work: Coroutine[Any, Any, None], part_ended: asyncio.Future[str] | None
) -> asyncio.Task[None]:
    """Run a part until it is cancelled; report if it ends before that."""

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        log.critical(
            "a part of the gateway has ended because of a bug; the gateway stops, and has to be started again",
            part=part,
            exc_info=task.exception(),
        )
        if part_ended is not None and not part_ended.done():
            part_ended.set_result(part)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


def _node(settings: Settings) -> Lightningd:
    return Lightningd(
        settings.socket_path,
        LinkOptions(
            window=settings.node_window,
            max_waiting=settings.node_max_waiting,
            probe_interval=settings.node_probe_interval,
            reply_timeout=settings.node_reply_timeout,
        ),
    )


def _inbox(settings: Settings) -> SqliteInbox:
    retention = Retention(
        settings.inbox_max_days * 86_400, settings.inbox_max_mb * 1_000_000, settings.inbox_consumer_share
    )
    options = SqliteOptions(heartbeat=settings.heartbeat, make_parents=settings.data_dir is not None)
    return SqliteInbox(settings.inbox_path, retention, options)


def _outbox(settings: Settings) -> SqliteOutbox:
    return SqliteOutbox(settings.outbox_path, _outbox_bounds(settings), settings.data_dir is not None)


def _outbox_bounds(settings: Settings) -> Bounds:
    return Bounds(
        peer_entries=settings.outbox_peer_entries,
        peer_size=settings.outbox_peer_mb * 1_000_000,
        caller_entries=settings.outbox_caller_entries,
        caller_size=settings.outbox_caller_mb * 1_000_000,
        keep_time=settings.outbox_keep_hours * 3600,
        keep_entries=settings.outbox_keep_entries,
    )


def _attachment(settings: Settings, node: Lightningd, intake: Intake) -> Attachment:
    return Attachment(
        Paths.within(settings.plugin_path, settings.plugin_dir_for_node),
        settings.plugin_dir is not None or settings.data_dir is not None,
        settings.socket_path,
        intake,
        lambda: plugin_settings.manifest(
            settings, node.info.version if node.info else "", with_options=False
        ),
        node.start_plugin,
    )


def _servicers(
    settings: Settings, relay: Relay, mailbox: Mailbox, queueing: Queueing
) -> tuple[list[Servicer], Health]:
    """Return all servicers, and the health servicer."""
    expiry = Expiry(settings.outbox_expiry_hours * 3600, settings.outbox_max_expiry_hours * 3600)
    contracts: list[Servicer] = [
        CustomMsgService(relay, mailbox, queueing, expiry, VERSION),
        *servicers(DialectCore(relay, mailbox), settings.dialects, settings.lnd_type_set, VERSION),
    ]
    names = [name for servicer in contracts for name in servicer.services]
    health = Health(names)
    described = [Reflection([*names, *health.services])] if settings.reflection else []
    return [*contracts, health, *described], health


def _server_options(settings: Settings) -> ServerOptions:
    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        from custommsg_server.access.tls import Tls, TlsError, TlsFiles  # 14 ms to load

        try:
            tls = Tls(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        except TlsError as error:
            raise ListenError(f"Cannot listen with TLS: {error}.") from None
    return ServerOptions(tls, settings.max_connections, settings.max_connection_age if tls else 0.0)


def _memory(settings: Settings) -> int:
    return settings.memory_budget_mb * 1_000_000


def _peer_rate(settings: Settings) -> Rate:
    return Rate(settings.peer_messages_per_s, settings.peer_bytes_per_s, settings.peer_burst)


def _received_rate(settings: Settings) -> Rate:
    return Rate(
        settings.peer_received_messages_per_s,
        settings.peer_received_bytes_per_s,
        settings.peer_received_burst,
    )


def _caller_limits(settings: Settings) -> CallerLimits:
    return CallerLimits(
        settings.caller_calls,
        Rate(settings.caller_messages_per_s, settings.caller_bytes_per_s, settings.peer_burst),
    )
