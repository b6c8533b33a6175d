"""What callers do with the outbox: enqueue, look, cancel. What is sent from it is in `core/delivery`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from custommsg_server.core.limits import FRAMING
from custommsg_server.core.memory import MemoryBudget, weight
from custommsg_server.core.uses import (
    CANCEL_ENTRY,
    ENQUEUE,
    GET_ENTRY,
    LIST_OUTBOX,
    check_deadline,
    permitted,
    refuse_rated,
    require_any,
    send_use,
    subscribe_use,
)
from custommsg_server.domain.caller import Caller, Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.outbox import Draft, Entry, State
from custommsg_server.domain.wire import message_type
from custommsg_server.node.port import Outbound
from custommsg_server.outbox.port import Enqueued, Outbox, OutboxError, Page, Wanted

_RATED: Final = "use the outbox: each message would be several uses"
"""What a rune with a rate cannot do: a message is judged again when it is sent."""


class Queueing:
    """Puts messages into the outbox, and shows what is in it, for callers that may.

    Args:
        outbox: the outbox.
        memory: bounds what waits to be stored.
        enqueued: is told for whom something was enqueued.
    """

    def __init__(
        self, outbox: Outbox, memory: MemoryBudget, enqueued: Callable[[Iterable[bytes]], None]
    ) -> None:
        self._outbox = outbox
        self._memory = memory
        self._enqueued = enqueued

    async def begin(self, caller: Caller) -> None:
        """Let a stream begin. What may be enqueued on it is judged message by message.

        Raises:
            RelayError: NO_CREDENTIAL, NOT_PERMITTED, or the node cannot answer now.
        """
        refuse_rated(caller, _RATED)
        await caller.prove(ENQUEUE, check_deadline())

    async def enqueue(self, caller: Caller, draft: Draft) -> Enqueued:
        """Enqueue one message; return when it is safe.

        Raises:
            RelayError: NOT_PERMITTED, OVERLOADED, OUTBOX_FULL, IDEMPOTENCY_KEY_REUSED, OUTBOX_UNAVAILABLE, or
                OUTCOME_UNKNOWN if it may be in the outbox.
        """
        refuse_rated(caller, _RATED)
        memory = weight(1, len(draft.message))
        self._memory.take(caller.key, "requests", memory)
        try:
            [refusal] = await self._judge(caller, [draft])
            if refusal is not None:
                raise refusal
            caller.account.take(1, len(draft.message) + FRAMING)
            [result] = await self._store(caller, [draft])
        finally:
            self._memory.release(caller.key, "requests", memory)
        if isinstance(result, RelayError):
            raise result
        return result

    async def enqueue_batch(
        self, caller: Caller, drafts: Sequence[Draft]
    ) -> asyncio.Future[Sequence[Enqueued | RelayError]]:
        """Enqueue messages for a sender that can be held back; they have their place when this returns.

        Returns:
            A future of each result, which never raises.
        """
        refusals = await self._judge(caller, drafts)
        allowed = [draft for draft, refusal in zip(drafts, refusals, strict=True) if refusal is None]
        size = sum(len(draft.message) + FRAMING for draft in allowed)
        wait = caller.account.reserve(len(allowed), size)
        if wait:
            try:
                await asyncio.sleep(wait)
            except BaseException:
                caller.account.give_back(len(allowed), size)
                raise
        storing = self._store(caller, allowed)

        async def results() -> Sequence[Enqueued | RelayError]:
            stored = iter(await storing)
            return [next(stored) if refusal is None else refusal for refusal in refusals]

        return asyncio.ensure_future(results())

    async def find(self, caller: Caller, entry_id: str, key: str) -> Entry:
        """Return an entry by its id, or by the caller's key.

        Raises:
            RelayError: NOT_PERMITTED, ENTRY_UNKNOWN or OUTBOX_UNAVAILABLE.
        """
        return await self._find(caller, entry_id, key, GET_ENTRY)

    async def cancel(self, caller: Caller, entry_id: str, key: str) -> Entry:
        """Cancel an entry that waits; return it.

        Raises:
            RelayError: NOT_PERMITTED, ENTRY_UNKNOWN, ENTRY_NOT_WAITING or OUTBOX_UNAVAILABLE.
        """
        found = await self._find(caller, entry_id, key, CANCEL_ENTRY)
        with outbox_reasons():
            entry = await self._outbox.cancel(found.id)
        if entry is None:
            raise _unknown_entry()
        if entry.state is not State.CANCELLED:
            raise RelayError(
                Reason.ENTRY_NOT_WAITING,
                f"The entry is {entry.state.name} and cannot be cancelled. Only what waits for its peer can.",
                metadata={"state": entry.state.name},
            )
        return entry

    async def page(self, caller: Caller, wanted: Wanted, after: str, most: int) -> Page:
        """Return a page of the entries that the caller may see.

        Raises:
            RelayError: NOT_PERMITTED or OUTBOX_UNAVAILABLE.
        """
        refuse_rated(caller, _RATED)
        await require_any(caller, [Use(LIST_OUTBOX, {})])
        with outbox_reasons():
            page = await self._outbox.page(wanted, after, most)
        if caller.permit.is_unrestricted or not page.entries:
            return page
        kinds = {(one.peer_id, message_type(one.message)): None for one in page.entries}
        uses = [subscribe_use(peer_id, number, None, LIST_OUTBOX) for peer_id, number in kinds]
        verdicts = dict(zip(kinds, await permitted(caller, uses), strict=True))
        seen = [one for one in page.entries if verdicts[one.peer_id, message_type(one.message)]]
        return Page(seen, page.next)

    async def _find(self, caller: Caller, entry_id: str, key: str, method: str) -> Entry:
        if not caller.permit.asks_node:
            await require_any(caller, [Use(method, {})])
        with outbox_reasons():
            entry = await self._outbox.find(caller.name, entry_id=entry_id, key=key)
        if entry is None:
            raise _unknown_entry()
        await caller.require(
            subscribe_use(entry.peer_id, message_type(entry.message), None, method), check_deadline()
        )
        return entry

    async def _judge(self, caller: Caller, drafts: Sequence[Draft]) -> Sequence[RelayError | None]:
        if caller.permit.is_unrestricted:
            return [None] * len(drafts)
        uses = [send_use(Outbound(draft.peer_id, draft.message), ENQUEUE) for draft in drafts]
        return await caller.permit.judge(uses, check_deadline())

    def _store(self, caller: Caller, drafts: Sequence[Draft]) -> Awaitable[Sequence[Enqueued | RelayError]]:
        """Store messages: the call fixes their place."""
        if not drafts:
            return _nothing()
        stored = self._outbox.enqueue(caller.name, caller.permit.for_later, drafts)

        async def results() -> Sequence[Enqueued | RelayError]:
            try:
                results = await stored
            except OutboxError as error:
                return [_enqueue_failed(error)] * len(drafts)
            self._enqueued({draft.peer_id for draft in drafts})
            return results

        return results()


async def _nothing() -> Sequence[Enqueued | RelayError]:
    return ()


@contextmanager
def outbox_reasons() -> Iterator[None]:
    """Turn an OutboxError into a RelayError."""
    try:
        yield
    except OutboxError as error:
        raise unavailable(error) from None


def unavailable(error: OutboxError) -> RelayError:
    """Make the error for an outbox that cannot be used now."""
    return RelayError(
        Reason.OUTBOX_UNAVAILABLE,
        f"The outbox cannot be used now: {error}. Nothing was sent or enqueued by this call; try again.",
        retry_after=1.0,
    )


def _enqueue_failed(error: OutboxError) -> RelayError:
    if not error.is_unknown:
        return unavailable(error)
    return RelayError(
        Reason.OUTCOME_UNKNOWN,
        f"The outbox failed while it stored the message: {error}. The message may be in the outbox or not. Enqueue it"
        " again with the same idempotency key, if it has one.",
    )


def _unknown_entry() -> RelayError:
    return RelayError(
        Reason.ENTRY_UNKNOWN,
        "The outbox has no such entry, or no longer: an entry that has ended is kept for a limited time. ListOutbox"
        " shows the entries that there are.",
    )
