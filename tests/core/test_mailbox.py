"""The receiving half of the core: who may see what, and where a consumer starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from custommsg_server.core.mailbox import Mailbox, SubscribeRequest
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import InboxError, Position, Start
from custommsg_server.inbox.sqlite.inbox import SqliteInbox
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.callers import Permits, caller
from support.inboxes import FOREVER, arrival, numbers, some

SHOP = SubscribeRequest(Filter(), Start.BEGINNING, consumer="shop")


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[SqliteInbox]:
    """Run an inbox."""
    async with SqliteInbox(tmp_path / "inbox.sqlite3", FOREVER) as inbox:
        yield inbox


async def test_a_known_consumer_resumes_while_the_inbox_cannot_be_written(
    inbox: SqliteInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held can be read, so who has a position reads it."""
    mailbox = Mailbox(inbox, lambda: True)
    first = await mailbox.subscribe(caller(), SHOP)
    await first.aclose()
    await inbox.append([arrival(1)])

    def full(*_: object) -> int:
        raise InboxError("the disk is full")

    for name in ("open_consumer", "advance"):
        monkeypatch.setattr(SqliteStore, name, full)
    again = await mailbox.subscribe(caller(), SHOP)
    assert numbers((await anext(again)).events) == [1]


async def test_an_explicit_position_wins_over_that_of_the_consumer(inbox: SqliteInbox) -> None:
    """A client that reconnects goes on after what it got, not after what it acknowledged."""
    mailbox = Mailbox(inbox, lambda: True)
    positions = await inbox.append(some(1, 4))
    await mailbox.subscribe(caller(), SHOP)
    await mailbox.acknowledge(caller(), "shop", positions[0])
    resumed = await mailbox.subscribe(caller(), SHOP)
    assert numbers((await anext(resumed)).events) == [2, 3, 4]
    explicit = await mailbox.subscribe(caller(), SubscribeRequest(Filter(), positions[2], consumer="shop"))
    assert numbers((await anext(explicit)).events) == [4]


async def test_a_caller_sees_only_what_it_may(inbox: SqliteInbox) -> None:
    """The position goes on past what is left out; a subscription that could never show anything is refused."""
    mailbox = Mailbox(inbox, lambda: True)
    permit = Permits()
    subscription = await mailbox.subscribe(caller(permit), SubscribeRequest(Filter(), Start.BEGINNING))
    positions = await inbox.append(some(1, 3))
    permit.answer = RelayError(Reason.NOT_PERMITTED, "not this")
    batch = await anext(subscription)
    assert (list(batch.events), batch.position) == ([], positions[-1])
    with pytest.raises(RelayError) as refused:
        await mailbox.subscribe(caller(permit), SubscribeRequest(Filter()))
    assert refused.value.reason is Reason.NOT_PERMITTED


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ("7", Reason.INVALID_POSITION),
        ("0" * 16 + "-1", Reason.POSITION_OF_OTHER_INBOX),
        ("{inbox}-99", Reason.POSITION_NOT_REACHED),
    ],
)
async def test_a_position_that_is_not_of_this_inbox_has_its_reason(
    inbox: SqliteInbox, position: str, reason: Reason
) -> None:
    """Whether it is to start at, to list from, or to acknowledge."""
    mailbox = Mailbox(inbox, lambda: True)
    [latest] = await inbox.append([arrival(1)])
    await mailbox.subscribe(caller(), SHOP)
    where = Position(position.format(inbox=latest.partition("-")[0]))
    for attempt in (
        mailbox.subscribe(caller(), SubscribeRequest(Filter(), where)),
        mailbox.list_events(caller(), Filter(), where, 10),
        mailbox.acknowledge(caller(), "shop", where),
    ):
        with pytest.raises(RelayError) as refused:
            await attempt
        assert refused.value.reason is reason


async def test_an_unknown_consumer_is_neither_acknowledged_nor_deleted(inbox: SqliteInbox) -> None:
    """CONSUMER_UNKNOWN, with what to do."""
    mailbox = Mailbox(inbox, lambda: True)
    [position] = await inbox.append([arrival(1)])
    for attempt in (
        mailbox.acknowledge(caller(), "nobody", position),
        mailbox.delete_consumer(caller(), "nobody"),
    ):
        with pytest.raises(RelayError, match="ListConsumers") as refused:
            await attempt
        assert refused.value.reason is Reason.CONSUMER_UNKNOWN
