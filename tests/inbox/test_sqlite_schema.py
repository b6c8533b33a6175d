"""The versions of the SQLite tables, and their migrations."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from custommsg_server.inbox.port import InboxError
from custommsg_server.inbox.sqlite.schema import STEPS
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import arrival, numbers, read

NEXT = (
    *STEPS,
    "CREATE TABLE more (x INTEGER) STRICT; INSERT INTO more VALUES (1)",
    "UPDATE more SET x = x + 1",
)
BROKEN = (*NEXT[:-1], "INSERT INTO more VALUES (5); INSERT INTO no_such_table VALUES (1)")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Make an inbox of the first version with one message."""
    path = tmp_path / "inbox.db"
    store = SqliteStore(path, steps=STEPS[:1])
    store.append([arrival(42)])
    store.close()
    return path


def query(path: Path, sql: str) -> object:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).get
    finally:
        connection.close()


def test_an_old_inbox_moves_on(old: Path) -> None:
    """Each missing migration runs once, and no event is lost."""
    for _ in range(2):
        store = SqliteStore(old, steps=NEXT)
        assert numbers(read(store)) == [42]
        store.close()
    assert query(old, "PRAGMA user_version") == 3
    assert query(old, "SELECT x FROM more") == 2


def test_a_step_that_fails_changes_nothing(old: Path) -> None:
    """The file stays at the previous version, and works with the gateway of that version."""
    with pytest.raises(InboxError, match="no_such_table"):
        SqliteStore(old, steps=BROKEN)
    assert query(old, "PRAGMA user_version") == 2
    assert query(old, "SELECT count(*) FROM more") == 1
    store = SqliteStore(old, steps=NEXT[:-1])
    assert numbers(read(store)) == [42]
    store.close()


def test_a_newer_inbox_is_refused(old: Path) -> None:
    """After a downgrade, the gateway names the version that it cannot read, and changes nothing."""
    SqliteStore(old, steps=NEXT).close()
    before = old.read_bytes()
    with pytest.raises(InboxError, match=r"inbox\.db: its version is 3, .* up to 1; run the newer"):
        SqliteStore(old, steps=STEPS[:1])
    assert old.read_bytes() == before
