"""A gateway that is killed while it stores messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore
from support.inboxes import numbers, read, sequences

CHILD = """
import sys
from pathlib import Path
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.inbox.sqlite.retention import Retention
from custommsg_server.inbox.sqlite.store import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    batch = range(number, number + 7)
    store.append([Arrival(Kind.MESSAGE, 1, b"", b"xx" + n.to_bytes(8, "big") + bytes(500)) for n in batch])
    number += 7
    print(number, flush=True)
"""


def run_and_kill(path: Path, number: int, commits: int) -> int:
    """Have a child process store numbered messages, kill it, and return the last number that it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(number)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(commits):
            number = int(child.stdout.readline())
        child.kill()
        # What it could still say before it died counts, too.
        return max([number, *(int(line) for line in child.stdout if line.endswith("\n"))])


def test_what_was_committed_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    """Each committed message is there once, in order; a commit is complete or absent."""
    path = tmp_path / "inbox.db"
    number, deleted, latest = 0, 0, 0
    for commits in (1, 2, 40, 5, 100):
        told = run_and_kill(path, number, commits)
        store = SqliteStore(path)  # the dead process holds no lock
        held = store.held()
        events = read(store, latest)
        assert numbers(events) == list(range(number, number + len(events)))
        assert sequences(events) == list(range(latest + 1, held.latest + 1))
        assert len(events) % 7 == 0
        number += len(events)
        assert number >= told
        deleted += store.prune(Retention(0, 0), 10, 10_000)
        assert (store.held().count, store.held().floor) == (0, held.latest)
        latest = held.latest
        store.close()
    assert deleted == number == latest
