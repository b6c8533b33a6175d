"""The endpoint of the metrics, and those that are read at each scrape: the link to the node, inbox, outbox."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from custommsg_server.domain.address import Address, ListenError
from custommsg_server.domain.outbox import State
from custommsg_server.inbox.port import Bounds, Consumer, InboxError
from custommsg_server.ops.metrics import CallMetrics
from custommsg_server.ops.sources import Sources
from custommsg_server.outbox.port import Counts, OutboxError

log = structlog.get_logger()

MAX_CONSUMERS: Final = 100
"""Consumers with a lag of their own: callers choose the names, so their number has to be bounded."""
OTHERS: Final = "(others)"
"""The label of all others; no consumer can have this name."""
_TIMEOUT: Final = 5.0
"""Seconds that the event loop may take to answer before the scrape fails."""


@dataclass(frozen=True, slots=True)
class _Now:
    """Values that were read on the event loop."""

    lag: float
    bounds: Bounds | None
    consumers: list[Consumer]
    queued: Counts | None


@asynccontextmanager
async def serving(
    address: Address, sources: Sources, calls: CallMetrics, version: str
) -> AsyncIterator[Address]:
    """Serve the metrics for as long as the context lasts; yield the address, with the chosen port.

    Args:
        address: where to serve them.
        sources: what is read at each scrape.
        calls: the metrics of calls.
        version: the gateway's.

    Raises:
        ListenError: the address cannot be used.
    """
    GatewayCollector(sources, calls, version)
    ProcessCollector(registry=calls.registry)
    try:
        server, thread = start_http_server(address.port, address.host, calls.registry)
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


class GatewayCollector(Collector):
    """Reads the sources at each scrape, on a thread of the metrics endpoint."""

    def __init__(self, sources: Sources, calls: CallMetrics, version: str) -> None:
        self._sources = sources
        self._calls = calls
        self._version = version
        self._links = 0
        sources.node.watch(self._node_changed)
        self._loop = asyncio.get_running_loop()
        self._named: set[str] = set()
        calls.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the sources."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the sources, and yield the metrics. Raises TimeoutError: the event loop does not answer."""
        now = self._on_loop(self._ask(time.perf_counter()))
        yield from self._node()
        yield from self._callers()
        yield from self._received()
        yield from self._inbox(now)
        yield from self._consumers(now.consumers)
        yield from self._outbox(now.queued)
        yield _gauge("loop_delay_seconds", "How long the event loop took to start on the scrape.", now.lag)

    def _node_changed(self, is_up: bool) -> None:
        self._links += is_up

    def _on_loop(self, question: Coroutine[Any, Any, _Now]) -> _Now:
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(_TIMEOUT)
        except (TimeoutError, FutureCancelledError):
            future.cancel()
            raise TimeoutError("the gateway's event loop does not answer") from None

    async def _ask(self, asked: float) -> _Now:
        lag = time.perf_counter() - asked
        consumers: list[Consumer] = []
        bounds = None
        with suppress(InboxError):  # inbox_up is 0 then
            bounds = await self._sources.inbox.bounds()
            consumers = await self._sources.inbox.consumers.list()
        queued = None
        with suppress(OutboxError):  # outbox_up is 0 then
            queued = await self._sources.outbox.counts()
        return _Now(lag, bounds, consumers, queued)

    def _node(self) -> Iterator[Metric]:
        node = self._sources.node
        info = GaugeMetricFamily(
            "custommsg_info",
            "Versions of the gateway and of its node; the value is always 1.",
            labels=("version", "node_version", "network"),
        )
        known = node.info
        info.add_metric([self._version, known.version if known else "", known.network if known else ""], 1)
        yield info
        yield _gauge("node_up", "Whether the node answers.", node.is_up)
        yield _counter("node_links", "How often the link to the node was established.", self._links)
        calls = GaugeMetricFamily("custommsg_calls_in_flight", "Calls in progress.", labels=("method",))
        for method, count in self._calls.in_flight:
            calls.add_metric([method], count)
        yield calls

    def _callers(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "custommsg_memory_bytes",
            "Memory that calls take, by kind; memory_budget_mb limits it.",
            labels=("held_by",),
        )
        for kind, size in self._sources.memory.used.items():
            memory.add_metric([kind], size)
        yield memory
        yield _gauge("memory_free_bytes", "Free bytes of memory_budget_mb.", self._sources.memory.free)
        streams = self._sources.open_streams
        yield _gauge(
            "open_streams", "Health watches and reflection streams, which need no credential.", streams.count
        )
        yield _counter(
            "open_streams_refused",
            "Health watches and reflection streams that were refused.",
            streams.refused,
        )

    def _received(self) -> Iterator[Metric]:
        intake = self._sources.intake
        received = CounterMetricFamily(
            "custommsg_messages_received",
            "Messages from lightningd, by outcome: STORED, LOST, REFUSED or IGNORED.",
            labels=("outcome",),
        )
        for outcome in ("STORED", "LOST", "REFUSED", "IGNORED"):
            received.add_metric([outcome], getattr(intake, outcome.lower()))
        yield received

    def _inbox(self, now: _Now) -> Iterator[Metric]:
        sources, bounds = self._sources, now.bounds
        yield _gauge(
            "attached",
            "Whether lightningd is attached: 1 if messages from peers reach the gateway.",
            sources.attached(),
        )
        yield _gauge("inbox_up", "Whether the inbox works.", sources.inbox.error is None)
        yield _gauge("inbox_waiting_bytes", "Bytes of events that wait to be stored.", sources.intake.waiting)
        if bounds is not None:
            age = time.time() - bounds.oldest_ns / 1e9 if bounds.oldest_ns else 0.0
            yield _gauge("inbox_events", "Events in the inbox.", bounds.count)
            yield _gauge("inbox_bytes", "The size of the inbox; inbox_max_mb limits it.", bounds.size)
            yield _gauge("inbox_oldest_seconds", "The age of the oldest event in the inbox.", age)
            yield _gauge(
                "inbox_largest_share_ratio",
                "The part of the inbox that the peer with the most events in it has.",
                bounds.largest_share,
            )
            yield _counter(
                "messages_evicted", "Messages that were deleted to free space in the inbox.", bounds.evicted
            )
        with suppress(OSError):
            disk = os.statvfs(self._sources.data_path)
            yield _gauge(
                "inbox_disk_free_bytes", "Free bytes on the inbox's disk.", disk.f_bavail * disk.f_frsize
            )

    def _outbox(self, queued: Counts | None) -> Iterator[Metric]:
        yield _gauge("outbox_up", "Whether the outbox works.", self._sources.outbox.error is None)
        queued = queued or Counts(0, 0, 0, 0)
        age = time.time() - queued.oldest_ns / 1e9 if queued.oldest_ns else 0.0
        yield _gauge(
            "outbox_waiting_entries", "Messages in the outbox that wait for their peers.", queued.waiting
        )
        yield _gauge("outbox_waiting_bytes", "The size of these messages.", queued.waiting_size)
        yield _gauge("outbox_oldest_seconds", "About how long the oldest of these messages has waited.", age)
        yield _gauge("outbox_ended_entries", "Outbox entries that have ended and are kept.", queued.ended)
        ended = CounterMetricFamily(
            "custommsg_outbox_ended",
            "Outbox entries that have ended, by state: SENT, EXPIRED, CANCELLED, FAILED or UNKNOWN.",
            labels=("state",),
        )
        for state in State:
            if state.is_final:
                ended.add_metric([state.name], self._sources.delivery.ended[state.name])
        yield ended

    def _consumers(self, consumers: list[Consumer]) -> Iterator[Metric]:
        yield _gauge("consumers", "Number of named consumers.", len(consumers))
        expired = sum(one.is_expired for one in consumers)
        yield _gauge(
            "consumers_expired",
            "Named consumers that have missed events which the retention deleted.",
            expired,
        )
        names = {one.name for one in consumers}
        self._named &= names
        for name in sorted(names - self._named)[: MAX_CONSUMERS - len(self._named)]:
            self._named.add(name)
        lags: dict[str, int] = {}
        for one in consumers:
            name = one.name if one.name in self._named else OTHERS
            lags[name] = max(lags.get(name, 0), one.lag)
        family = GaugeMetricFamily(
            "custommsg_consumer_lag_events",
            "Events that a consumer has not acknowledged yet.",
            labels=("consumer",),
        )
        for name, lag in lags.items():
            family.add_metric([name], lag)
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"custommsg_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"custommsg_{name}", text, value=float(value))
