"""One call: its caller, its deadline, and its record for log, metrics and traces.

Servicers get a `Call` instead of gRPC's context.
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
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from custommsg_server.domain.caller import Caller
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

SENT: Final = "SENT"
"""The outcome of a message that the node has accepted; other outcomes are the names of reasons."""
DELIVERED: Final = "DELIVERED"
"""The outcome of an event that was written to a subscriber."""
_NO_STAGE: Final = nullcontext()

# gRPC's core can let a response wait for those that follow it, until there are 64 KiB (GRPC_WRITE_BUFFER_HINT). Of its
# flags, grpc.aio passes on only "do not compress", of which there is no use here: no response is compressed. So the
# hint takes its place. Without this line, `write_all` does the same with a write to the socket for each response.
cygrpc.WriteFlag.no_compress = cygrpc.WriteFlag.buffer_hint


class Observer(Protocol):
    """Observes calls. It runs on the event loop during each call, so it must be fast, and must not raise."""

    def began(self, call: Call) -> None:
        """Record the start of a call."""

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """Record the outcome of messages of a call; `limit` is set for OVERLOADED."""

    def ended(self, call: Call) -> None:
        """Record the end of a call, and its result."""


class Call:
    """One call. Implements `domain.caller.Record`.

    Args:
        method: its full name, without the slash in front: "custommsg.v1.CustomMsgService/SendCustomMsg".
        is_stream: whether it is a stream.
        context: gRPC's context of it.
        timeout: the maximum duration in seconds, whatever the caller's deadline; infinite for a stream.
        observers: its observers.
        label: the label of its method in metrics; empty: the method.
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
        """The name of its reason, if it failed with one."""
        self.is_send = False
        """Whether it sends one message, so that its outcome is that of the message."""
        self.peer = b""
        self.message_type: int | None = None
        self.size = 0
        """Size of the message in bytes."""
        self.counts: dict[str, int] = {}
        """Messages by outcome."""
        self.seconds = 0.0
        """How long it took, once it has ended."""
        self.tracer: Any = None
        """Belongs to the tracing observer, if there is one: has `stage(name)`."""
        for observer in observers:
            observer.began(self)

    @property
    def caller(self) -> Caller:
        """The caller."""
        assert self._caller is not None, "set by `Calls` before the servicer is called"
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def caller_name(self) -> str:
        """The name of its credential, or its address."""
        if self._caller is not None:
            return self._caller.name or self._caller.key
        return str(self.context.peer())

    @property
    def deadline(self) -> float:
        """The deadline, in seconds of the running loop's clock; infinite for a stream without a deadline.

        It is slightly before the caller's deadline. At the caller's deadline, gRPC itself ends the call, and the caller
        would not learn whether the message was written.
        """
        remaining: float | None = self.context.time_remaining()
        allowed = self._timeout if remaining is None else min(remaining, self._timeout)
        if allowed == math.inf:
            return allowed
        return asyncio.get_running_loop().time() + allowed - min(0.1, allowed / 10)

    async def read(self) -> Any:
        """Return the next request of a stream, or `grpc.aio.EOF`."""
        return await self.context.read()

    async def begin(self, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """Send the initial metadata of a stream.

        A cancellation waits until it is sent: gRPC cannot send a status meanwhile, so the caller of a gateway that
        stops would not learn why the stream ends.
        """
        with _UNLESS_GONE:
            sending = asyncio.ensure_future(self.context.send_initial_metadata(metadata))
            try:
                await asyncio.shield(sending)
            except asyncio.CancelledError:
                await asyncio.gather(sending, return_exceptions=True)
                raise

    async def write(self, response: Any) -> None:
        """Write a response of a stream; wait while the caller does not read."""
        with _UNLESS_GONE:
            await self.context.write(response)

    async def write_all(self, responses: Sequence[bytes]) -> None:
        """Write responses of a stream, at least one; they need fewer writes to the socket than one by one."""
        context, last = self.context, len(responses) - 1
        with _UNLESS_GONE:
            for number, response in enumerate(responses):
                if number < last:
                    context.disable_next_message_compression()  # _MORE_FOLLOWS
                await context.write(response)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """See `domain.caller.Record`."""
        return _NO_STAGE if self.tracer is None else self.tracer.stage(name)

    def names(self, outbound: Outbound) -> None:
        """Record the message of the call."""
        self.peer = outbound.peer_id
        self.message_type = message_type(outbound.message)
        self.size = len(outbound.message)

    def count(self, outcome: str, messages: int = 1, limit: str = "") -> None:
        """Count messages with an outcome."""
        self.counts[outcome] = self.counts.get(outcome, 0) + messages
        for observer in self._observers:
            observer.counted(self, outcome, messages, limit)

    def count_outcomes(self, outcomes: Sequence[str | RelayError]) -> None:
        """Count the outcomes of a batch: once for each distinct outcome, since this is on the hot path."""
        failures = [one for one in outcomes if isinstance(one, RelayError)]
        if sent := len(outcomes) - len(failures):
            self.count(SENT, sent)
        if failures:
            kinds = Counter((one.reason.name, one.metadata.get("limit", "")) for one in failures)
            for (reason, limit), messages in kinds.items():
                self.count(reason, messages, limit)

    def failed(self, code: str, error: RelayError | None = None) -> None:
        """Record the failure."""
        self.code = code
        if error is None:
            return
        self.reason = error.reason.name
        if self.is_send:
            self.count_outcomes([error])
        elif "limit" in error.metadata:
            self.count(self.reason, 0, error.metadata["limit"])

    def end(self) -> None:
        """Record the end, and inform the observers."""
        self.seconds = time.perf_counter() - self._started
        if self.is_send and not self.counts:
            self.count(SENT if self.code == "OK" else self.code)
        for observer in self._observers:
            observer.ended(self)


class _UnlessGone:
    """Turns the error of a write to a caller that has gone into a cancellation, which gRPC has not made yet."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, grpc.aio.InternalError):
            raise asyncio.CancelledError from None


_UNLESS_GONE: Final = _UnlessGone()
