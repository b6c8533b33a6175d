"""Receiving in the core: consumers, reasons and permissions, over any engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from custommsg_server.core.mailbox import Mailbox, MailboxSubscription, SubscribeRequest
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.domain.caller import Caller, Use
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Event, InboxError, Position, Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox
from support.inboxes import ALICE, BOB, EVERYTHING, FOREVER, FaultyStore, arrival, numbers, some
from support.memory_inbox import Log, MemoryInbox


class Permit:
    """Permits what a test says, and records the uses."""

    is_unrestricted = False

    def __init__(
        self, allows: Callable[[Use], bool] = lambda use: True, why: str = "no", asks_node: bool = False
    ) -> None:
        self.allows = allows
        self.why = why
        self.asks_node = asks_node
        self.judged: list[Use] = []
        self.fails: RelayError | None = None
        self.gate: asyncio.Event | None = None

    async def judge(self, uses: Sequence[Use], deadline: float) -> list[RelayError | None]:
        assert deadline > asyncio.get_running_loop().time()
        self.judged += uses
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            return [self.fails] * len(uses)
        return [None if self.allows(use) else RelayError(Reason.NOT_PERMITTED, self.why) for use in uses]


def caller(permit: Permit | None = None) -> Caller:
    """Make a caller with a permit."""
    return Caller("", "", permit or Permit(), cast("Any", None), cast("Any", None))


ANYONE = caller()


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox(Log("one"), heartbeat=0)


@pytest.fixture
def mailbox(inbox: MemoryInbox) -> Mailbox:
    return Mailbox(inbox, lambda: True, MemoryBudget(1 << 30))


async def drained(subscription: MailboxSubscription) -> list[Event]:
    """Read all there is now."""
    events: list[Event] = []
    while batch := (await anext(subscription)).events:
        events += batch
    return events


# Starting, and consumers


async def test_a_new_consumer_starts_where_it_asks_and_a_known_one_resumes(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """After its acknowledged position, whatever its start is; an explicit position takes precedence."""
    positions = await inbox.append(some(1, 5))

    async def subscribe(start: Start | Position | None) -> list[int]:
        request = SubscribeRequest(Filter(), start, consumer="shop")
        return numbers(await drained(await mailbox.subscribe(ANYONE, request)))

    assert await subscribe(Start.BEGINNING) == [1, 2, 3, 4, 5]
    assert await subscribe(Start.LIVE) == [1, 2, 3, 4, 5], "nothing was acknowledged"
    assert await mailbox.acknowledge(ANYONE, "shop", positions[1]) == positions[1]
    for start in (None, Start.BEGINNING, Start.LIVE):
        assert await subscribe(start) == [3, 4, 5]
    assert await subscribe(positions[3]) == [5]
    assert await subscribe(positions[0]) == [2, 3, 4, 5]
    [consumer] = await mailbox.consumers(ANYONE)
    assert (consumer.name, consumer.position, consumer.is_expired) == ("shop", positions[1], False)


async def test_the_default_is_live_and_a_new_consumer_keeps_its_start(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """So that events before its first acknowledgement are not missed after a reconnect."""
    await inbox.append(some(1, 2))
    plain = await mailbox.subscribe(ANYONE, SubscribeRequest(Filter()))
    named = await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), consumer="shop"))
    assert plain.position == named.position == (await inbox.bounds()).latest
    await inbox.append(some(3, 4))
    for subscription in (plain, named):
        assert numbers(await drained(subscription)) == [3, 4]
        await subscription.aclose()
        assert [batch async for batch in subscription] == []
    again = await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), consumer="shop"))
    assert numbers(await drained(again)) == [3, 4]


async def test_a_known_consumer_resumes_while_the_inbox_cannot_be_written(tmp_path: Path) -> None:
    """Stored events can be read from its position."""
    async with SqliteInbox(tmp_path / "inbox.sqlite3", FOREVER, open_store=FaultyStore) as inbox:
        mailbox = Mailbox(inbox, lambda: True, MemoryBudget(1 << 30))
        request = SubscribeRequest(Filter(), Start.BEGINNING, consumer="shop")
        await mailbox.subscribe(ANYONE, request)
        await inbox.append([arrival(1)])

        def full(name: str, position: int, now_ns: int) -> int:
            raise InboxError("the disk is full")

        assert inbox._store is not None
        inbox._store.advance = inbox._store.open_consumer = full  # type: ignore[method-assign]
        assert numbers((await anext(await mailbox.subscribe(ANYONE, request))).events) == [1]
        with pytest.raises(RelayError, match="the disk is full"):
            await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), consumer="other"))


async def test_events_are_listed_by_page(inbox: MemoryInbox, mailbox: Mailbox) -> None:
    """From the beginning or after a position, with a filter; the last page is marked."""
    positions = await inbox.append([arrival(n, peer_id=ALICE if n % 2 else BOB) for n in range(1, 8)])
    wanted = Filter(peer_ids=frozenset({ALICE}))
    batch = await mailbox.list_events(ANYONE, wanted, None, 3)
    assert (numbers(batch.events), batch.is_last) == ([1, 3, 5], False)
    batch = await mailbox.list_events(ANYONE, wanted, batch.position, 3)
    assert (numbers(batch.events), batch.is_last) == ([7], True)
    batch = await mailbox.list_events(ANYONE, Filter(), positions[4], 100)
    assert (numbers(batch.events), batch.is_last) == ([6, 7], True)


# Reasons


async def reason_of(work: Any) -> RelayError:
    """Return the reason of a failure."""
    with pytest.raises(RelayError) as caught:
        await work
    return caught.value


async def test_a_position_that_leads_nowhere_has_a_reason(inbox: MemoryInbox, mailbox: Mailbox) -> None:
    """Each case has its own reason, with the field and a position at which to continue."""
    other = await MemoryInbox(Log("other")).append(some(1, 3))
    positions = await inbox.append(some(1, 5))
    await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), Start.BEGINNING, consumer="shop"))
    inbox.log.delete_oldest(2)
    beyond = inbox.log.position(inbox.log.latest + 1)
    cases = (
        (positions[0], Reason.POSITION_EXPIRED, {"earliest": positions[1]}),
        (other[2], Reason.POSITION_OF_OTHER_INBOX, {}),
        (beyond, Reason.POSITION_NOT_REACHED, {"latest": positions[4]}),
        (Position("17"), Reason.INVALID_POSITION, {}),
        (Position(""), Reason.INVALID_POSITION, {}),
    )
    for position, reason, metadata in cases:
        for work, field in (
            (mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), position)), "after"),
            (mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), position, "new")), "after"),
            (mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), position, "shop")), "after"),
            (mailbox.list_events(ANYONE, Filter(), position, 5), "after"),
            (mailbox.acknowledge(ANYONE, "shop", position), "position"),
        ):
            if field == "position" and reason is Reason.POSITION_EXPIRED:
                assert await work == positions[0], "what was deleted can be acknowledged"
                continue
            error = await reason_of(work)
            assert (error.reason, error.field, error.metadata) == (reason, field, metadata)
            assert error.retry_after is None
    assert [one.name for one in await mailbox.consumers(ANYONE)] == ["shop"]
    error = await reason_of(mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), consumer="shop")))
    assert (error.reason, error.field) == (Reason.POSITION_EXPIRED, ""), "no field of this request is wrong"


async def test_a_subscription_that_the_retention_overtakes_ends_with_a_reason(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """Its position does not change."""
    positions = await inbox.append(some(1, 5))
    subscription = await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), positions[0]))
    inbox.log.delete_oldest(3)
    error = await reason_of(anext(subscription))
    assert (error.reason, error.metadata) == (Reason.POSITION_EXPIRED, {"earliest": positions[2]})
    assert subscription.position == positions[0]


async def test_an_unknown_consumer_has_a_reason(mailbox: Mailbox, inbox: MemoryInbox) -> None:
    """Acknowledging and deleting create no consumer."""
    [position] = await inbox.append([arrival()])
    for work in (
        mailbox.acknowledge(ANYONE, "shop", position),
        mailbox.delete_consumer(ANYONE, "shop"),
    ):
        assert (await reason_of(work)).reason is Reason.CONSUMER_UNKNOWN
    await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), consumer="shop"))
    await mailbox.delete_consumer(ANYONE, "shop")
    assert await mailbox.consumers(ANYONE) == []


async def test_an_inbox_that_fails_is_unavailable_and_its_state_is_told(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """With a time to try again; the state can always be read."""
    await inbox.append([arrival()])
    state = await mailbox.state(ANYONE)
    assert (state.bounds, state.attached, state.error) == (await inbox.bounds(), True, None)
    await inbox.close()
    for work in (
        mailbox.subscribe(ANYONE, SubscribeRequest(Filter())),
        mailbox.list_events(ANYONE, Filter(), None, 1),
        mailbox.consumers(ANYONE),
        mailbox.delete_consumer(ANYONE, "shop"),
    ):
        error = await reason_of(work)
        assert (error.reason, error.retry_after) == (Reason.INBOX_UNAVAILABLE, 1.0)
        assert "the inbox is closed" in error.message
    state = await Mailbox(inbox, lambda: False, MemoryBudget(1 << 30)).state(ANYONE)
    assert (state.bounds, state.attached, state.error) == (None, False, "the inbox is closed")


# Permits


async def test_each_method_asks_for_its_own_use(inbox: MemoryInbox, mailbox: Mailbox) -> None:
    """And does nothing if it is not permitted."""
    [position] = await inbox.append([arrival()])
    await mailbox.subscribe(ANYONE, SubscribeRequest(Filter(), Start.BEGINNING, "shop"))
    nothing = Permit(lambda use: False)
    who = caller(nothing)
    for work in (
        mailbox.subscribe(who, SubscribeRequest(Filter(), consumer="new")),
        mailbox.list_events(who, Filter(), None, 1),
        mailbox.acknowledge(who, "shop", position),
        mailbox.delete_consumer(who, "shop"),
        mailbox.consumers(who),
        mailbox.state(who),
    ):
        assert (await reason_of(work)).reason is Reason.NOT_PERMITTED
    assert nothing.judged == [
        Use("subscribecustommsg", {"consumer": "new"}),
        Use("listevents", {}),
        Use("ackcustommsg", {"consumer": "shop"}),
        Use("deleteconsumer", {"consumer": "shop"}),
        Use("listconsumers", {}),
        Use("getinbox", {}),
    ]
    [consumer] = await mailbox.consumers(ANYONE)
    assert (consumer.name, consumer.position) == ("shop", inbox.log.position(0))


def of_alice(use: Use) -> bool:
    """Permit the events of Alice."""
    return use.params.get("node_id") == ALICE.hex()


async def test_a_caller_gets_what_it_may_see_and_the_position_goes_on(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """Each pair of peer and type is checked once in a batch, with nothing else of the event."""
    permit = Permit(lambda use: of_alice(use) and use.params.get("type") != 4, why="not present")
    request = SubscribeRequest(EVERYTHING, consumer="shop")
    subscription = await mailbox.subscribe(caller(permit), request)
    permit.judged.clear()
    arrivals = [
        arrival(1, message_type=3),
        arrival(2, message_type=4),
        arrival(3, message_type=3),
        arrival(4, peer_id=BOB, message_type=3),
        arrival(kind=Kind.CONNECTED),
        arrival(kind=Kind.DISCONNECTED, peer_id=BOB),
    ]
    positions = await inbox.append(arrivals)
    batch = await anext(subscription)
    assert [event.position for event in batch.events] == [positions[0], positions[2], positions[4]]
    assert batch.position == subscription.position == positions[5]
    shop = {"consumer": "shop"}
    for use in (
        Use("subscribecustommsg", {"node_id": ALICE.hex(), "msg": "0003", "type": 3} | shop),
        Use("subscribecustommsg", {"node_id": BOB.hex(), "msg": "0003", "type": 3} | shop),
        Use("subscribecustommsg", {"node_id": BOB.hex()} | shop),
    ):
        assert permit.judged.count(use) == 1
    assert len(permit.judged) == 5
    assert (await anext(subscription)).events == []
    assert len(permit.judged) == 5, "a heartbeat needs no permit"


async def test_listed_events_are_judged_one_by_one_too(inbox: MemoryInbox, mailbox: Mailbox) -> None:
    """As uses of listevents."""
    permit = Permit(of_alice, why="not present")
    await inbox.append([arrival(1), arrival(2, peer_id=BOB), arrival(3)])
    batch = await mailbox.list_events(caller(permit), Filter(), None, 10)
    assert numbers(batch.events) == [1, 3]
    assert batch.is_last
    assert {use.method for use in permit.judged} == {"listevents"}


async def test_an_interruption_reaches_everybody_but_its_peer_only_those_who_may_see_it(
    inbox: MemoryInbox, mailbox: Mailbox
) -> None:
    """Each caller learns that events may be missing, but not of which peer."""
    subscription = await mailbox.subscribe(
        caller(Permit(of_alice, why="not present")), SubscribeRequest(Filter())
    )
    await inbox.append(
        [
            Arrival(Kind.INTERRUPTION, 1, lost=1),
            arrival(kind=Kind.INTERRUPTION, peer_id=ALICE)._replace(lost=2),
            arrival(kind=Kind.INTERRUPTION, peer_id=BOB)._replace(lost=3),
        ]
    )
    seen = [(event.arrival.peer_id, event.arrival.lost) for event in await drained(subscription)]
    assert seen == [(b"", 1), (ALICE, 2), (b"", 3)]


@pytest.mark.parametrize(
    ("wanted", "uses"),
    [
        (Filter(), [{}]),
        (Filter(peer_ids=frozenset({ALICE})), [{"node_id": ALICE.hex()}]),
        (
            Filter(peer_ids=frozenset({ALICE, BOB}), types=TypeSet([range(3, 5)])),
            [
                {"node_id": peer_id.hex(), "msg": f"{number:04x}", "type": number}
                for peer_id in (ALICE, BOB)
                for number in (3, 4)
            ],
        ),
        (Filter(types=TypeSet([range(64)])), [{"msg": f"{one:04x}", "type": one} for one in range(64)]),
        (Filter(types=TypeSet([range(65)])), [{}]),
        (Filter(peer_ids=frozenset(bytes([number]) for number in range(65))), [{}]),
        (Filter(peer_ids=frozenset({ALICE, BOB}), types=TypeSet([range(40)])), [{}]),
    ],
)
async def test_a_subscription_begins_if_something_of_it_may_be_seen(
    mailbox: Mailbox, wanted: Filter, uses: list[dict[str, str | int]]
) -> None:
    """A few pairs of peer and type are checked one by one; for more, only the method is checked."""
    refused = Permit(lambda use: False)
    error = await reason_of(mailbox.subscribe(caller(refused), SubscribeRequest(wanted)))
    assert error.reason is Reason.NOT_PERMITTED
    assert [use.params for use in refused.judged] == uses
    last = Permit(lambda use: use.params == uses[-1])
    await mailbox.subscribe(caller(last), SubscribeRequest(wanted))
    depends = Permit(lambda use: False, why="Not permitted: msg not present")
    await mailbox.subscribe(caller(depends), SubscribeRequest(wanted))


async def test_a_rune_with_a_rate_is_refused(mailbox: Mailbox) -> None:
    """Each check would count as a use, so nothing is checked."""
    permit = Permit(asks_node=True)
    for work in (
        mailbox.subscribe(caller(permit), SubscribeRequest(Filter())),
        mailbox.list_events(caller(permit), Filter(), None, 1),
    ):
        error = await reason_of(work)
        assert error.reason is Reason.NOT_PERMITTED
        assert "rate" in error.message
    assert permit.judged == []


async def test_a_node_that_cannot_judge_now_loses_no_event(inbox: MemoryInbox, mailbox: Mailbox) -> None:
    """The next try returns the same events, also after a cancellation."""
    permit = Permit()
    permit.fails = RelayError(Reason.NODE_UNAVAILABLE, "away")
    refused = mailbox.subscribe(caller(permit), SubscribeRequest(Filter()))
    assert (await reason_of(refused)).reason is Reason.NODE_UNAVAILABLE
    permit.fails = None
    subscription = await mailbox.subscribe(caller(permit), SubscribeRequest(Filter()))
    start = subscription.position
    await inbox.append(some(1, 3))
    permit.fails = RelayError(Reason.NODE_UNAVAILABLE, "away")
    assert (await reason_of(anext(subscription))).reason is Reason.NODE_UNAVAILABLE
    permit.fails, permit.gate = None, asyncio.Event()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert subscription.position == start
    permit.gate.set()
    assert numbers(await drained(subscription)) == [1, 2, 3]
