"""Sends a message with an idempotency key once, however often a caller asks for it.

That a message is about to be sent is stored before, and its outcome after it. A later request with the same key is
answered from there, and sends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from custommsg_server.core.queueing import unavailable
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.outbox import Draft, Entry, Outcome, State
from custommsg_server.node.port import Outbound
from custommsg_server.outbox.port import Outbox, OutboxError

log = structlog.get_logger()

SENT_BEFORE: Final = "Sent by an earlier request with the same idempotency key"
"""The status of a message that was sent before."""
SETTLE_AGAIN: Final = 1.0
"""Seconds after which storing an outcome is tried again."""

Result = str | RelayError
Send = Callable[[Sequence[Outbound]], Awaitable[Sequence[Result]]]
"""Sends messages, in order; returns each result and never raises."""


class Once:
    """Sends messages that may have keys.

    Args:
        outbox: remembers the keys.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._running: dict[tuple[str, str], tuple[Outbound, asyncio.Future[Result]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def send(
        self, caller: str, batch: Sequence[Outbound], keys: Sequence[str], send: Send
    ) -> Sequence[Result]:
        """Send messages, in order, those whose keys were used before aside; return each result, never raise.

        It goes on when whoever asked has gone: a retry with the same key learns what became of it.

        Args:
            caller: the name of the caller, whose keys they are.
            batch: the messages.
            keys: the key of each; empty: none.
            send: sends those that are to be sent.
        """
        return await asyncio.shield(self._spawn(self._send(caller, batch, keys, send)))

    async def finish(self, seconds: float) -> None:
        """Wait until what was begun is stored, for some seconds at most; then give it up."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=max(1.0, seconds))
            for task in left:
                task.cancel()

    async def _send(
        self, caller: str, batch: Sequence[Outbound], keys: Sequence[str], send: Send
    ) -> Sequence[Result]:
        results: dict[int, Result] = {}
        ours: dict[int, asyncio.Future[Result]] = {}
        others: dict[int, asyncio.Future[Result]] = {}
        for place, (outbound, key) in enumerate(zip(batch, keys, strict=True)):
            running = self._running.get((caller, key)) if key else None
            if running is not None and running[0] == outbound:
                others[place] = running[1]
            elif running is not None:
                results[place] = _reused()
            elif key:
                ours[place] = asyncio.get_running_loop().create_future()
                self._running[caller, key] = outbound, ours[place]
        try:
            entries = await self._begin(caller, batch, keys, ours, results)
            sending = [place for place in range(len(batch)) if place not in results and place not in others]
            sent = await send([batch[place] for place in sending]) if sending else ()
            results |= zip(sending, sent, strict=True)
            if entries:
                await self._settle([_outcome(entry, results[place]) for place, entry in entries.items()])
        finally:
            for place, future in ours.items():
                del self._running[caller, keys[place]]
                future.set_result(results.get(place) or _unknown())
        for place, future in others.items():
            results[place] = await future
        return [results[place] for place in range(len(batch))]

    async def _begin(
        self,
        caller: str,
        batch: Sequence[Outbound],
        keys: Sequence[str],
        ours: dict[int, asyncio.Future[Result]],
        results: dict[int, Result],
    ) -> dict[int, Entry]:
        """Store that messages are about to be sent; return their entries, and add what is known of the others."""
        if not ours:
            return {}
        drafts = [Draft(*batch[place], lifetime=0.0, key=keys[place]) for place in ours]
        entries: dict[int, Entry] = {}
        try:
            begun = await self._outbox.begin(caller, drafts)
        except OutboxError as error:
            results |= dict.fromkeys(ours, unavailable(error))
            return {}
        for place, one in zip(ours, begun, strict=True):
            if isinstance(one, RelayError):
                results[place] = one
            elif one.is_new:
                entries[place] = one.entry
            else:
                results[place] = SENT_BEFORE if one.entry.state is State.SENT else _unknown()
        return entries

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        try:
            await self._outbox.settle(outcomes)
        except OutboxError as error:
            # Whoever asked knows the outcome; until it is stored, a retry with the same key gets OUTCOME_UNKNOWN.
            log.error("cannot store what became of messages with keys; trying again", error=str(error))
            self._spawn(settle(self._outbox, outcomes))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def settle(outbox: Outbox, outcomes: Sequence[Outcome]) -> None:
    """Store outcomes; try until it works."""
    while True:
        try:
            await outbox.settle(outcomes)
        except OutboxError:
            await asyncio.sleep(SETTLE_AGAIN)
        else:
            return


def _outcome(entry: Entry, result: Result) -> Outcome:
    if not isinstance(result, RelayError):
        return Outcome(entry.id, State.SENT)
    if result.reason is Reason.OUTCOME_UNKNOWN:
        return Outcome(entry.id, State.UNKNOWN, result.reason.name)
    return Outcome(entry.id, State.WAITING_FOR_PEER)  # nothing was sent: it is forgotten


def _unknown() -> RelayError:
    return RelayError(
        Reason.OUTCOME_UNKNOWN,
        "An earlier request with this idempotency key has sent the message, or not: that is not known. This request"
        " sent nothing. Ask the peer, or send the message with another key if it may come twice.",
    )


def _reused() -> RelayError:
    return RelayError(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "Another message with this idempotency key is being sent now. Nothing was done. Use a new key for each.",
        field="idempotency_key",
    )
