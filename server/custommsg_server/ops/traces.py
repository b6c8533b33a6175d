"""OpenTelemetry: a span for each call, with children for its stages, sent over OTLP/gRPC.

opentelemetry-instrumentation-grpc is not used: it iterates over the handler of a stream, but our handlers are
coroutines that write. This module needs the extra `otel`, and is imported only if traces are switched on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from custommsg_server.api.call import Call
from custommsg_server.domain.errors import RelayError

log = structlog.get_logger()

_CONTEXT: Final = ("traceparent", "tracestate")
"""Metadata with the caller's trace context: https://www.w3.org/TR/trace-context/."""
_SERVER_ERRORS: Final = {
    "INTERNAL",
    "UNKNOWN",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
}
"""Codes that make a server's span an error (OpenTelemetry's semantic conventions for gRPC)."""
_SHUTDOWN: Final = 2.0
"""Seconds to send the last spans: a collector that cannot be reached must not delay the end of the gateway."""


class Tracing:
    """Makes spans. Implements `api.call.Observer`.

    A span has what metrics have, and the type and size of the message. It has no payload, no credential, no peer.
    """

    def __init__(self, exporter: SpanExporter, version: str) -> None:
        # service.name and more can be set with OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
        resource = Resource({"service.name": "custommsg", "service.version": version}).merge(
            Resource.create()
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("custommsg_server", version)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str, version: str) -> Tracing:
        """Send spans to an OTLP/gRPC endpoint: "http://host:4317", or "https://..." with TLS."""
        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=5), version)

    async def close(self) -> None:
        """Send the last spans, for two seconds at most."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, daemon=True).start()
        try:
            async with asyncio.timeout(_SHUTDOWN):
                await done.wait()
        except TimeoutError:
            log.warning("the last traces could not be sent", seconds=_SHUTDOWN)

    def began(self, call: Call) -> None:
        """See `api.call.Observer`."""
        carrier = {key: value for key, value in call.context.invocation_metadata() or () if key in _CONTEXT}
        service, _, method = call.method.partition("/")
        span = self._tracer.start_span(
            call.method,
            self._propagator.extract(carrier) if carrier else None,
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        call.tracer = _CallTracer(self._tracer, span)

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """See `api.call.Observer`."""

    def ended(self, call: Call) -> None:
        """See `api.call.Observer`."""
        span = call.tracer.span
        span.set_attribute("rpc.grpc.status_code", call.code)
        if call.reason:
            span.set_attribute("custommsg.reason", call.reason)
        if call.message_type is not None:
            span.set_attribute("custommsg.type", call.message_type)
            span.set_attribute("custommsg.size", call.size)
        if call.is_stream:
            for outcome, messages in call.counts.items():
                span.set_attribute(f"custommsg.messages.{outcome}", messages)
        if call.code in _SERVER_ERRORS:
            span.set_status(StatusCode.ERROR, call.reason or call.code)
        span.end()


class _CallTracer:
    """The span of one call, and its children."""

    __slots__ = ("_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self.span = span

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Make a child span for as long as the context lasts."""
        child = self._tracer.start_span(name, set_span_in_context(self.span))
        try:
            yield
        except RelayError as error:
            child.set_attribute("custommsg.reason", error.reason.name)
            raise
        finally:
            child.end()
