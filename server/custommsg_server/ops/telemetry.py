"""The observers of the gateway, as the settings select them: metrics, traces, and a log line for each call."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Literal

from custommsg_server.api.call import Call, Observer
from custommsg_server.domain.address import Address
from custommsg_server.ops import logs
from custommsg_server.ops.sources import Sources
from custommsg_server.settings import Settings, SettingsError

if TYPE_CHECKING:
    from custommsg_server.ops.metrics import CallMetrics
    from custommsg_server.ops.traces import Tracing

LogCalls = Literal["all", "failures", "none"]


class CallLog:
    """Logs calls at info. Implements `api.call.Observer`.

    A `Call` has no runes, payloads or keys, so they cannot be logged.

    Args:
        which: the calls to log; may be changed at any time.
    """

    def __init__(self, which: LogCalls) -> None:
        self.which = which

    def began(self, call: Call) -> None:
        """See `api.call.Observer`."""

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """See `api.call.Observer`."""

    def ended(self, call: Call) -> None:
        """See `api.call.Observer`."""
        if self.which == "none" or (self.which == "failures" and call.code == "OK") or not logs.says_info():
            return
        # Written as JSON at once: with a dictionary it costs a call more than twice as much.
        line = f'"method": {quoted(call.method)}, "code": "{call.code}"'
        if call.reason:
            line += f', "reason": "{call.reason}"'
        if call.peer:
            line += f', "peer": "{call.peer.hex()}"'
        if call.message_type is not None:
            line += f', "type": {call.message_type}'
        if call.size:
            line += f', "size": {call.size}'
        if call.is_stream and call.counts:
            line += f', "messages": {json.dumps(call.counts)}'
        logs.info("call", f'{line}, "seconds": {call.seconds:.6f}, "caller": {quoted(call.caller_name)}')


class Telemetry:
    """The observers of one gateway. Those that are switched off cost nothing.

    Raises:
        SettingsError: traces are switched on, and the extra otel is not installed.
    """

    def __init__(self, settings: Settings, version: str) -> None:
        self._address = settings.metrics_address
        self._version = version
        self.metrics: CallMetrics | None = None
        if self._address is not None:
            from custommsg_server.ops.metrics import CallMetrics  # prometheus_client takes 2 MB and 20 ms

            self.metrics = CallMetrics()
        self._calls = CallLog(settings.log_calls)
        self._tracing = _tracing(settings, version)

    @property
    def observers(self) -> list[Observer]:
        """The observers of calls; the span comes first, so that it includes the others."""
        return [one for one in (self._tracing, self.metrics, self._calls) if one is not None]

    def reload(self, settings: Settings) -> None:
        """Apply the settings that may change while the gateway runs."""
        logs.set_level(settings.log_level)
        self._calls.which = settings.log_calls

    @asynccontextmanager
    async def observing(self, sources: Sources) -> AsyncIterator[Address | None]:
        """Serve the metrics for as long as the context lasts; yield their address, or None.

        Raises:
            ListenError: the address of the metrics cannot be used.
        """
        async with AsyncExitStack() as stack:
            served = None
            if self._tracing is not None:
                stack.push_async_callback(self._tracing.close)
            if self._address is not None and self.metrics is not None:
                from custommsg_server.ops.collector import serving

                served = await stack.enter_async_context(
                    serving(self._address, sources, self.metrics, self._version)
                )
            yield served


def _tracing(settings: Settings, version: str) -> Tracing | None:
    endpoint = settings.otel_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not endpoint:
        return None
    try:
        from custommsg_server.ops.traces import Tracing
    except ImportError:
        raise SettingsError(
            "--otel-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra for traces is not installed."
            " Run pip install 'custommsg-server[otel]', or unset it."
        ) from None
    return Tracing.to(endpoint, version)
