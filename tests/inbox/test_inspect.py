"""Checks of an inbox that do not change it, for `doctor`."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.inspect import look_at
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import arrival


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


def test_an_inbox_that_is_not_there_yet_is_no_mistake(path: Path) -> None:
    """The check creates no files."""
    seen = look_at(path.parent / "a" / "inbox.db")
    assert (seen.exists, seen.in_use) == (False, False)
    assert seen.free > 0
    assert list(path.parent.iterdir()) == []


def test_an_inbox_is_looked_at_while_it_is_used_and_afterwards(path: Path) -> None:
    """The result says whether a gateway uses it."""
    store = SqliteStore(path)
    assert look_at(path).exists, "an empty one"
    store.append([arrival(number) for number in range(300)])
    store.open_consumer("a", 1, 1)
    assert look_at(path).in_use
    store.close()
    assert not look_at(path).in_use


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE events SET kind = 9 WHERE sequence = 250", "an event is not as it was written"),
        ("DELETE FROM peers", "an event is not as it was written"),
        ("UPDATE meta SET value = 'x' WHERE name = 'inbox_id'", "its id is not as it was written"),
        ("UPDATE meta SET value = 'x' WHERE name = 'floor'", "a number is not as it was written"),
        ("DROP TABLE consumers", "no such table: consumers"),
        ("PRAGMA user_version = 99", "its version is 99"),
    ],
)
def test_what_is_wrong_is_told(path: Path, damage: str, said: str) -> None:
    """The InboxError names the file; the newest events are read as a sample."""
    store = SqliteStore(path)
    store.append([arrival(number) for number in range(300)])
    store.close()
    connection = apsw.Connection(str(path))
    connection.execute(damage)
    connection.close()
    with pytest.raises(InboxError, match=said) as caught:
        look_at(path)
    assert str(path) in str(caught.value)
