"""The receiving half of the core."""

from __future__ import annotations

from pathlib import Path

from custommsg_server.core.mailbox import Mailbox, Wish
from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import StoreError
from custommsg_server.inbox.position import Start
from custommsg_server.inbox.sqlite.inbox import Inbox
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import FOREVER, arrival


async def test_a_known_consumer_resumes_while_the_inbox_cannot_be_written(tmp_path: Path) -> None:
    """What is held can be read, so who has a position reads it."""
    store = SqliteStore(tmp_path / "inbox.sqlite3")
    async with Inbox(lambda: store, FOREVER) as inbox:
        mailbox = Mailbox(inbox, lambda: True)
        wish = Wish(Filter(), Start.BEGINNING, consumer="shop")
        await mailbox.subscribe(wish)
        await inbox.append([arrival(1)])

        def full(name: str, position: int, now_ns: int) -> int:
            raise StoreError("the disk is full")

        store.advance = full  # type: ignore[method-assign]
        assert (await anext(await mailbox.subscribe(wish))).position == 1
