"""One call: who makes it, how long it may take, and what is noted of it for log, metrics and traces.

Servicers get a `Call` where gRPC would hand them its own context.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc

from custommsg_server.domain.caller import Caller
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

SENT: Final = "SENT"
"""The outcome of a message that the node has taken; other outcomes are the names of reasons."""
DELIVERED: Final = "DELIVERED"
"""The outcome of an event that was written to a subscriber."""
_NO_STAGE: Final = nullcontext()


class Observer(Protocol):
    """Is told of calls, on the event loop and in the way of each call: it must be quick, and must not raise."""

    def began(self, call: Call) -> None:
        """Take note that a call has begun."""

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """Take note of the outcome of some of its messages; with OVERLOADED comes the name of the limit."""

    def ended(self, call: Call) -> None:
        """Take note that it has ended, and how."""


class Call:
    """One call. Implements `domain.caller.Record`.

    Args:
        method: its full name, without the slash in front: "custommsg.v1.CustomMsgService/SendCustomMsg".
        is_stream: whether it may last.
        context: gRPC's context of it.
        timeout: seconds that it may take at most, whatever its caller allows; infinite for a stream.
        observers: are told.
        label: what metrics call its method; empty: its name.
    """

    __slots__ = (
        "_caller",
        "_observers",
        "_started",
        "_timeout",
        "code",
        "context",
        "counts",
        "is_send",
        "is_stream",
        "label",
        "message_type",
        "method",
        "peer",
        "reason",
        "seconds",
        "size",
        "tracer",
    )

    def __init__(
        self,
        method: str,
        is_stream: bool,
        context: Context,
        timeout: float,
        observers: Sequence[Observer],
        label: str = "",
    ) -> None:
        self.method = method
        self.label = label or method
        self.is_stream = is_stream
        self.context = context
        self._timeout = timeout
        self._observers = observers
        self._caller: Caller | None = None
        self._started = time.perf_counter()
        self.code = "OK"
        """The name of its status code."""
        self.reason = ""
        """The name of its reason, if it failed for one."""
        self.is_send = False
        """Whether it sends one message, so that its own outcome is the message's."""
        self.peer = b""
        self.message_type: int | None = None
        self.size = 0
        """Bytes of messages."""
        self.counts: Counter[str] = Counter()
        """Messages by outcome."""
        self.seconds = 0.0
        """How long it took, once it has ended."""
        self.tracer: Any = None
        """Belongs to the tracing observer, if there is one: has `stage(name)`."""
        for observer in observers:
            observer.began(self)

    @property
    def caller(self) -> Caller:
        """Who makes it."""
        assert self._caller is not None, "set by the interceptor before the servicer is called"
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def caller_name(self) -> str:
        """Who makes it: the name of its credential, or its address."""
        if self._caller is not None and self._caller.name:
            return self._caller.name
        return str(self.context.peer())

    @property
    def deadline(self) -> float:
        """When to give up on it, in seconds of the running loop's clock; infinite for a stream without a deadline.

        That is a little before the caller's own deadline: at its deadline gRPC ends the call without us, and the
        caller would not learn whether the message was written.
        """
        remaining: float | None = self.context.time_remaining()
        allowed = self._timeout if remaining is None else min(remaining, self._timeout)
        if allowed == math.inf:
            return allowed
        return asyncio.get_running_loop().time() + allowed - min(0.1, allowed / 10)

    async def read(self) -> Any:
        """Return the next request of a stream, or `grpc.aio.EOF`."""
        return await self.context.read()

    async def write(self, response: Any) -> None:
        """Write a response of a stream; it waits while the caller does not read."""
        try:
            await self.context.write(response)
        except grpc.aio.InternalError:
            # gRPC could not write since the caller has gone, and has not cancelled this task yet.
            raise asyncio.CancelledError from None

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """See `domain.caller.Record`."""
        return _NO_STAGE if self.tracer is None else self.tracer.stage(name)

    def names(self, outbound: Outbound) -> None:
        """Note the message that it is about."""
        self.peer = outbound.peer_id
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
        """Note how it failed."""
        self.code = code
        if error is None:
            return
        self.reason = error.reason.name
        if self.is_send:
            self.count_outcomes([error])
        elif "limit" in error.metadata:
            self.count(self.reason, 0, error.metadata["limit"])

    def end(self) -> None:
        """Note that it has ended, and tell the observers."""
        self.seconds = time.perf_counter() - self._started
        if self.is_send and not self.counts:
            self.count(SENT if self.code == "OK" else self.code)
        for observer in self._observers:
            observer.ended(self)
