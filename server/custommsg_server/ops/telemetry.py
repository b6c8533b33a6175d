"""All that watches the gateway, put together from the settings."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from custommsg_server.api.call import Observer
from custommsg_server.domain.address import Address
from custommsg_server.ops import logs
from custommsg_server.ops.call_log import CallLog
from custommsg_server.ops.collector import Rooms, RoomsCollector
from custommsg_server.ops.endpoint import serving
from custommsg_server.ops.metrics import CallMetrics
from custommsg_server.settings import Settings, SettingsError

if TYPE_CHECKING:
    from custommsg_server.ops.traces import Tracing


class Telemetry:
    """What watches one gateway. What is switched off costs nothing.

    Args:
        settings: what is switched on.
        version: the gateway's.

    Raises:
        SettingsError: traces are asked for, and what they need is not installed.
    """

    def __init__(self, settings: Settings, version: str) -> None:
        self._address = settings.metrics_address
        self._version = version
        self._registry = CollectorRegistry()
        self.metrics = CallMetrics(self._registry) if self._address else None
        self._calls = CallLog(settings.log_calls)
        self._tracing = _tracing(settings, version)

    @property
    def observers(self) -> list[Observer]:
        """Who is told of calls; the span is around all that the others do."""
        return [one for one in (self._tracing, self.metrics, self._calls) if one is not None]

    def reload(self, settings: Settings) -> None:
        """Take the settings that may change while the gateway runs."""
        logs.set_level(settings.log_level)
        self._calls.which = settings.log_calls

    @asynccontextmanager
    async def watching(self, rooms: Rooms) -> AsyncIterator[Address | None]:
        """Serve the metrics for as long as the context lasts; yield where, if they are.

        Args:
            rooms: where numbers are read.

        Raises:
            ListenError: the address of the metrics cannot be had.
        """
        async with AsyncExitStack() as stack:
            served = None
            if self._tracing is not None:
                stack.push_async_callback(self._tracing.close)
            if self._address is not None and self.metrics is not None:
                RoomsCollector(rooms, self.metrics, self._version, self._registry)
                ProcessCollector(registry=self._registry)
                served = await stack.enter_async_context(serving(self._registry, self._address))
            yield served


def _tracing(settings: Settings, version: str) -> Tracing | None:
    endpoint = settings.otel_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not endpoint:
        return None
    try:
        from custommsg_server.ops.traces import Tracing
    except ImportError:
        raise SettingsError(
            "--otel-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and they need an extra that is not"
            " installed: pip install 'custommsg-server[otel]', or unset it."
        ) from None
    return Tracing.to(endpoint, version)
