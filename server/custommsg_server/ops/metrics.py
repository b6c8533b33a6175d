"""The metrics of calls and hook calls.

The number of label values is bounded: methods and codes are those of the contract, outcomes are reasons. A peer's id is
never a label. Children are looked up only once, so that a call costs a few microseconds.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from custommsg_server.api.call import DELIVERED, Call

CALL_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds. Sending takes about 1 ms on an idle machine, and 30 s is the default call_timeout."""
HOOK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds. A commit to an idle disk takes a few milliseconds."""


class _Method:
    """The state of one method."""

    __slots__ = ("ended", "in_flight", "name", "seconds")

    def __init__(self, name: str, seconds: Histogram) -> None:
        self.name = name
        self.in_flight = 0
        self.ended: dict[tuple[str, str], Counter] = {}
        self.seconds = seconds


class CallMetrics:
    """Counts calls and messages. Implements `api.call.Observer` and `core.intake.Watcher`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        """Where the metrics are registered; not the global one, since a process may run several gateways."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it would add a second series for each
        self._calls = Counter(
            "custommsg_calls",
            "Calls that have ended, by method, status code and reason.",
            ("method", "code", "reason"),
            registry=registry,
        )
        self._seconds = Histogram(
            "custommsg_call_seconds",
            "Duration of unary calls.",
            ("method",),
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self._sent = Counter(
            "custommsg_messages_sent",
            "Messages that callers sent, by outcome: SENT, or the reason of the failure.",
            ("outcome",),
            registry=registry,
        )
        self._delivered = Counter(
            "custommsg_events_delivered", "Events that were written to subscribers.", registry=registry
        )
        self._limits = Counter(
            "custommsg_limits_hit",
            "Refusals by limits, by limit.",
            ("limit",),
            registry=registry,
        )
        self._hook = Histogram(
            "custommsg_hook_seconds",
            "Time until hook calls that arrived together were stored, or lost.",
            buckets=HOOK_BUCKETS,
            registry=registry,
        )
        self._methods: dict[str, _Method] = {}
        self._outcomes: dict[str, Counter] = {}

    @property
    def in_flight(self) -> list[tuple[str, int]]:
        """Each method that was called, and its number of calls in progress."""
        return [(method.name, method.in_flight) for method in list(self._methods.values())]

    def began(self, call: Call) -> None:
        """See `api.call.Observer`."""
        method = self._methods.get(call.label)
        if method is None:  # labels are the methods that are served, so there are few
            method = _Method(call.label, self._seconds.labels(call.label))
            self._methods[call.label] = method
        method.in_flight += 1

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """See `api.call.Observer`."""
        if limit:
            self._limits.labels(limit).inc(messages or 1)
        if outcome == DELIVERED:
            self._delivered.inc(messages)
        elif messages:
            child = self._outcomes.get(outcome)
            if child is None:
                child = self._outcomes[outcome] = self._sent.labels(outcome)
            child.inc(messages)

    def ended(self, call: Call) -> None:
        """See `api.call.Observer`."""
        method = self._methods[call.label]
        method.in_flight -= 1
        key = (call.code, call.reason)
        child = method.ended.get(key)
        if child is None:
            child = method.ended[key] = self._calls.labels(call.label, *key)
        child.inc()
        if not call.is_stream:
            method.seconds.observe(call.seconds)

    def handed_over(self, seconds: float) -> None:
        """See `core.intake.Watcher`."""
        self._hook.observe(seconds)
