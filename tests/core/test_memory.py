"""One budget of memory, shared by callers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.access.accounts import NoAccount
from custommsg_server.access.runes import Unrestricted
from custommsg_server.core.mailbox import Mailbox, SubscribeRequest
from custommsg_server.core.memory import MemoryBudget, weight
from custommsg_server.domain.caller import Caller
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Start
from support.inboxes import arrival
from support.memory_inbox import Log, MemoryInbox

LIMIT = 1000


def fill(memory: MemoryBudget, caller: str, size: int = 10) -> int:
    """Take as much as a caller may; return the size."""
    held = 0
    while memory.fits(caller, size):
        memory.hold(caller, "streams", size)
        held += size
    return held


def test_a_greedy_caller_leaves_as_much_as_it_takes() -> None:
    """One caller alone gets half; each new caller gets something, and the budget is never exceeded."""
    memory = MemoryBudget(LIMIT)
    held = [fill(memory, f"caller {number}") for number in range(5)]
    assert held == [500, 250, 130, 60, 30]
    assert memory.free == LIMIT - sum(held)


def test_callers_that_take_turns_get_equal_parts() -> None:
    """Each of n callers gets 1/(n + 1) of the budget."""
    memory = MemoryBudget(LIMIT)
    for _ in range(LIMIT):
        for number in range(4):
            if memory.fits(str(number), 1):
                memory.hold(str(number), "streams", 1)
    assert memory.free == pytest.approx(LIMIT / 5, abs=4)


def test_beyond_its_part_a_call_is_refused_and_says_which_limit() -> None:
    """OVERLOADED, with a time to try again; finished calls release their memory."""
    memory = MemoryBudget(LIMIT)
    memory.take("a", "requests", 400)
    with pytest.raises(RelayError) as caught:
        memory.take("a", "requests", 400)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.metadata == {"limit": "memory"}
    assert caught.value.retry_after
    memory.take("b", "requests", 400)
    assert memory.used == {"requests": 800, "streams": 0, "subscriptions": 0}
    memory.release("a", "requests", 400)
    memory.release("b", "requests", 400)
    assert memory.free == LIMIT


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 700)), max_size=100))
def test_calls_never_exceed_the_budget(wanted: list[tuple[int, int]]) -> None:
    """With any requests in any order."""
    memory = MemoryBudget(LIMIT)
    with ExitStack() as stack:
        for caller, size in wanted:
            with suppress(RelayError):
                memory.take(str(caller), "requests", size)
                stack.callback(memory.release, str(caller), "requests", size)
            assert memory.free >= 0
    assert memory.free == LIMIT


async def test_who_is_held_back_goes_on_when_there_is_room() -> None:
    """All waiting callers, one after the other; a cancelled one does not delay the others."""
    memory = MemoryBudget(LIMIT)
    held = fill(memory, "a")
    waiting = [asyncio.create_task(memory.room("a")) for _ in range(100)]
    for task in waiting[:50]:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait(waiting[:50])
    assert not any(task.done() for task in waiting[50:])
    memory.release("a", "streams", held)
    await asyncio.gather(*waiting[50:])


async def test_a_caller_that_holds_little_does_not_wait_behind_one_that_holds_much() -> None:
    """A caller with space continues, in any order of arrival."""
    memory = MemoryBudget(LIMIT)
    fill(memory, "greedy", 1)
    memory.hold("modest", "streams", 260)
    greedy = [asyncio.create_task(memory.room("greedy")) for _ in range(100)]
    modest = asyncio.create_task(memory.room("modest"))
    await asyncio.sleep(0)
    assert not modest.done()
    memory.release("modest", "streams", 200)
    for _ in range(20):
        memory.release("greedy", "streams", 1)
    await modest
    assert not any(task.done() for task in greedy)
    for task in greedy:
        task.cancel()
    await asyncio.wait(greedy)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=40))
def test_nobody_waits_for_ever(wanted: list[tuple[int, int]]) -> None:
    """If memory is released at some time, all waiting callers continue."""

    async def run() -> None:
        memory = MemoryBudget(LIMIT)

        async def work(caller: str, size: int) -> None:
            for _ in range(3):
                await memory.room(caller)
                memory.hold(caller, "streams", size)
                await asyncio.sleep(0)
                memory.release(caller, "streams", size)

        await asyncio.wait_for(asyncio.gather(*(work(str(caller), size) for caller, size in wanted)), 5)
        assert memory.free == LIMIT

    asyncio.run(run())


async def test_what_a_subscriber_has_not_taken_is_counted_and_nothing_more_is_read() -> None:
    """Until it asks for more: else each of a thousand streams that nobody reads could keep a batch for free."""
    inbox, budget = MemoryInbox(Log("one"), heartbeat=0), MemoryBudget(100_000)
    await inbox.append([arrival(number, size=1000) for number in range(1, 4)])
    mailbox = Mailbox(inbox, lambda: True, budget)
    caller = Caller("", "greedy", Unrestricted(), NoAccount(), cast("Any", None))
    request = SubscribeRequest(Filter(), Start.BEGINNING)
    first, second = [await mailbox.subscribe(caller, request) for _ in range(2)]
    batch = await anext(first)
    assert budget.used["subscriptions"] == weight(3, sum(len(one.arrival.message) for one in batch.events))
    budget.hold("greedy", "streams", 60_000)
    waiting = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    assert not waiting.done()
    await first.aclose()
    assert budget.used["subscriptions"] == 0
    budget.release("greedy", "streams", 60_000)
    assert len((await waiting).events) == 3
    assert not (await anext(second)).events  # the heartbeat
    assert budget.used["subscriptions"] == 0
