"""What is known of one call, while it runs and when it has ended: logs, metrics and traces are made of it.

Only `began`, `counted` and `ended` know who listens. The rest of the gateway says what it knows to `current()`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol

from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

SENT: Final = "SENT"
"""The outcome of a message that the node has taken; other outcomes are the names of reasons."""
DELIVERED: Final = "DELIVERED"
"""The outcome of an event that was written to a subscriber."""


class Observer(Protocol):
    """Is told of calls, on the event loop and in the way of each call: it must be quick, and must not raise."""

    def began(self, call: Call) -> None:
        """Take note that a call has begun."""

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """Take note of the outcome of some of its messages; with OVERLOADED comes the limit."""

    def ended(self, call: Call) -> None:
        """Take note that it has ended, and how."""


class Call:
    """One call.

    Args:
        method: its full name, without the slash in front: "custommsg.v1.CustomMsgService/SendCustomMsg".
        is_stream: whether it may last.
        context: gRPC's context of it.
        observers: who is told.
    """

    __slots__ = (
        "_observers",
        "_started",
        "caller",
        "code",
        "context",
        "counts",
        "is_send",
        "is_stream",
        "message_type",
        "method",
        "peer",
        "reason",
        "seconds",
        "size",
        "span",
    )

    def __init__(self, method: str, is_stream: bool, context: Any, observers: Sequence[Observer]) -> None:
        self.method = method
        self.is_stream = is_stream
        self.context = context
        self._observers = observers
        self._started = time.perf_counter()
        self.caller = ""
        """Who calls, as far as that was found out; empty: ask the context for the address."""
        self.code = "OK"
        """The name of its status code."""
        self.reason = ""
        """The name of its reason, if it failed for one."""
        self.is_send = False
        """Whether it is to send one message, so that its own outcome is the message's."""
        self.peer = b""
        self.message_type: int | None = None
        self.size = 0
        """Bytes of messages."""
        self.counts: Counter[str] = Counter()
        """Messages by outcome."""
        self.seconds = 0.0
        """How long it took, once it has ended."""
        self.span: Any = None
        """Belongs to the tracing observer, if there is one."""
        _current.set(self)
        for observer in observers:
            observer.began(self)

    def names(self, outbound: Outbound) -> None:
        """Take note of the message that it is about."""
        self.peer = outbound.node_id
        self.message_type = message_type(outbound.message)
        self.size = len(outbound.message)

    def count(self, outcome: str, messages: int = 1, limit: str = "") -> None:
        """Count messages that have their outcome."""
        self.counts[outcome] += messages
        for observer in self._observers:
            observer.counted(self, outcome, messages, limit)

    def count_outcomes(self, outcomes: Sequence[str | RelayError]) -> None:
        """Count a batch: once for each outcome that occurs in it, since this is the hot path."""
        failures = [one for one in outcomes if isinstance(one, RelayError)]
        if sent := len(outcomes) - len(failures):
            self.count(SENT, sent)
        if failures:
            kinds = Counter((one.reason.name, one.metadata.get("limit", "")) for one in failures)
            for (reason, limit), messages in kinds.items():
                self.count(reason, messages, limit)

    def failed(self, code: str, error: RelayError | None = None) -> None:
        """Take note of how it failed."""
        self.code = code
        if error is None:
            return
        self.reason = error.reason.name
        if not self.is_send and "limit" in error.metadata:
            self.count(self.reason, 0, error.metadata["limit"])
        elif self.is_send:
            self.count_outcomes([error])

    def end(self) -> None:
        """Take note that it has ended; tell who listens."""
        self.seconds = time.perf_counter() - self._started
        if self.is_send and not self.counts:
            self.count(SENT if self.code == "OK" else self.code)
        for observer in self._observers:
            observer.ended(self)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Return the call that this task serves."""
    return _current.get(None) or Call("", False, None, ())
