"""What changes an SQLite outbox, within a transaction. Statements are few, and have many rows, as in the inbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import apsw

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.domain.outbox import Draft, Outcome, State
from custommsg_server.domain.wire import message_type
from custommsg_server.outbox.port import Bounds, Enqueued
from custommsg_server.storage.values import number

ENTRY_OVERHEAD: Final = 300
"""Bytes that an entry takes beside its message, about; they count for the bounds."""
_AT_ONCE: Final = 1000
"""Entries that are expired or deleted in one transaction, at most."""
_INSERT: Final = (
    "INSERT INTO entries (id, state, peer_id, caller, credential, key, at_least_once, is_direct, size, type,"
    " created_ns, changed_ns, expires_ns, expires, attempts, message) VALUES "
)
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERTS: Final = tuple((rows, _INSERT + ", ".join([_ROW] * rows)) for rows in (64, 16, 4, 1))
_MOST_PLACES: Final = 512
_SETTLE: Final = """
    UPDATE entries SET state = j.state, reason = j.reason, changed_ns = ?2, ended = iif(j.state > 2, ?3, NULL)
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS reason FROM json_each(?1)) AS j
    WHERE entries.id = j.id AND entries.state <= 2
"""
_FORGET: Final = """
    DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?1)) AND is_direct AND state = 2
"""


class Now(NamedTuple):
    """The time, in nanoseconds."""

    age: int
    """What the age clock says."""
    wall: int
    """What the machine's clock says, since 1970, UTC."""


class Known(NamedTuple):
    """What is stored under a key."""

    id: int
    state: State
    peer_id: bytes
    message: bytes
    is_direct: bool


@dataclass(slots=True)
class Row:
    """A message that is to be stored."""

    draft: Draft
    id: int
    state: State


@dataclass
class Adding:
    """Adds messages of one caller within a transaction.

    Args:
        connection: to the file, in a transaction.
        caller: the caller's name.
        bounds: what may wait.
        now: the time.
        next_id: returns an id for a new entry.
        text_of: returns the text of an id.
    """

    connection: apsw.Connection
    caller: str
    bounds: Bounds
    now: Now
    next_id: Callable[[], int]
    text_of: Callable[[int], str]
    _known: dict[str, Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        [row] = self.connection.execute(
            "INSERT INTO callers (name) VALUES (?) ON CONFLICT DO UPDATE SET name = name"
            " RETURNING id, waiting, bytes",
            (self.caller,),
        ).fetchall()
        self._caller, self._waiting, self._bytes = (number(value) for value in row)

    def enqueue(self, credential: str, drafts: Sequence[Draft]) -> list[Enqueued | RelayError]:
        """Store messages that wait; see `outbox.port.Outbox.enqueue`."""
        self._look_up([draft.key for draft in drafts if draft.key])
        shares = self._shares({draft.peer_id for draft in drafts})
        results: list[Enqueued | RelayError] = []
        rows: list[Row] = []
        for draft in drafts:
            known = self._known.get(draft.key) if draft.key else None
            if known is not None:
                results.append(self._again(known, draft))
                continue
            size = len(draft.message) + ENTRY_OVERHEAD
            count, held = shares.get(draft.peer_id, (0, 0))
            if (full := self._full(count + 1, held + size, size)) is not None:
                results.append(full)
                continue
            shares[draft.peer_id] = count + 1, held + size
            self._waiting += 1
            self._bytes += size
            row = self._row(draft, State.WAITING_FOR_PEER)
            rows.append(row)
            results.append(Enqueued(self.text_of(row.id), row.state, True))
        if rows:
            [(id_,)] = self.connection.execute(
                "INSERT INTO credentials (text) VALUES (?) ON CONFLICT DO UPDATE SET text = text RETURNING id",
                (credential,),
            ).fetchall()
            self._insert(rows, number(id_), is_direct=False)
        return results

    def begin(self, drafts: Sequence[Draft]) -> list[tuple[int, bool] | RelayError]:
        """Store messages that are sent at once; return for each its entry's number, and whether that is new."""
        self._look_up([draft.key for draft in drafts])
        results: list[tuple[int, bool] | RelayError] = []
        rows: list[Row] = []
        for draft in drafts:
            known = self._known.get(draft.key)
            if known is None:
                row = self._row(draft, State.SENDING)
                rows.append(row)
                results.append((row.id, True))
            elif known.is_direct and (known.peer_id, known.message) == (draft.peer_id, draft.message):
                results.append((known.id, False))
            else:
                results.append(_reused())
        self._insert(rows, 0, is_direct=True)
        return results

    def _look_up(self, keys: Sequence[str]) -> None:
        for some, places in _in_places(sorted(set(keys))):
            for key, id_, state, peer_id, message, is_direct in self.connection.execute(
                "SELECT key, id, state, peer_id, message, is_direct FROM entries"  # noqa: S608 -- question marks
                f" WHERE caller = ? AND key IN ({places})",
                (self._caller, *some),
            ):
                self._known[str(key)] = Known(
                    number(id_),
                    State(state),
                    bytes(peer_id),
                    bytes(message),
                    bool(is_direct),
                )

    def _shares(self, peer_ids: set[bytes]) -> dict[bytes, tuple[int, int]]:
        shares: dict[bytes, tuple[int, int]] = {}
        for some, places in _in_places(sorted(peer_ids)):
            for peer_id, waiting, size in self.connection.execute(
                "SELECT peer_id, waiting, bytes FROM shares"  # noqa: S608 -- question marks
                f" WHERE caller = ? AND peer_id IN ({places})",
                (self._caller, *some),
            ):
                shares[bytes(peer_id)] = number(waiting), number(size)
        return shares

    def _again(self, known: Known, draft: Draft) -> Enqueued | RelayError:
        if known.is_direct or (known.peer_id, known.message) != (draft.peer_id, draft.message):
            return _reused()
        return Enqueued(self.text_of(known.id), known.state, False)

    def _full(self, peer_count: int, peer_size: int, size: int) -> RelayError | None:
        bounds = self.bounds
        for limit, value, most in (
            ("outbox_peer_entries", peer_count, bounds.peer_entries),
            ("outbox_peer_mb", peer_size, bounds.peer_size),
            ("outbox_caller_entries", self._waiting + 1, bounds.caller_entries),
            ("outbox_caller_mb", self._bytes + size, bounds.caller_size),
        ):
            if value > most:
                return RelayError(
                    Reason.OUTBOX_FULL,
                    f"The outbox has no room: the limit {limit} of this caller is reached. Nothing was enqueued. Wait"
                    " until entries are sent or expire, or cancel some; then try again.",
                    metadata={"limit": limit},
                )
        return None

    def _row(self, draft: Draft, state: State) -> Row:
        row = Row(draft, self.next_id(), state)
        if draft.key:
            self._known[draft.key] = Known(
                row.id, state, draft.peer_id, draft.message, state is State.SENDING
            )
        return row

    def _insert(self, rows: Sequence[Row], credential: int, *, is_direct: bool) -> None:
        at, now = 0, self.now
        for count, statement in _INSERTS:
            while len(rows) - at >= count:
                values: list[int | str | bytes | None] = []
                for row in rows[at : at + count]:
                    draft = row.draft
                    lifetime = int(draft.lifetime * 1e9)
                    values += (
                        row.id,
                        row.state.value,
                        draft.peer_id,
                        self._caller,
                        credential,
                        draft.key or None,
                        draft.at_least_once,
                        is_direct,
                        len(draft.message) + ENTRY_OVERHEAD,
                        message_type(draft.message),
                        now.wall,
                        now.wall,
                        0 if is_direct else draft.expires_ns or now.wall + lifetime,
                        now.age + lifetime,
                        int(is_direct),
                        draft.message,
                    )
                self.connection.execute(statement, values)
                at += count


def mark_sending(connection: apsw.Connection, ids: Sequence[int], now: Now) -> set[int]:
    """Store that entries are about to be sent; return those that still wait and have not expired."""
    rows = connection.execute(
        "UPDATE entries SET state = 2, attempts = attempts + 1, changed_ns = ?2 WHERE state = 1 AND expires > ?3"
        " AND expires_ns > ?2 AND id IN (SELECT value FROM json_each(?1)) RETURNING id",
        (json.dumps(list(ids)), now.wall, now.age),
    ).fetchall()
    return {number(id_) for (id_,) in rows}


def settle(connection: apsw.Connection, outcomes: Sequence[tuple[int, Outcome]], now: Now) -> None:
    """Store what became of attempts."""
    unsent = [id_ for id_, outcome in outcomes if outcome.state is State.WAITING_FOR_PEER]
    if unsent:
        connection.execute(_FORGET, (json.dumps(unsent),))
    rows = [(id_, outcome.state.value, outcome.reason) for id_, outcome in outcomes]
    connection.execute(_SETTLE, (json.dumps(rows), now.wall, now.age))


def recover(connection: apsw.Connection, now: Now) -> int:
    """End what was being sent when the gateway stopped, or have it wait again; return how many there were."""
    connection.execute(
        "UPDATE entries SET state = iif(at_least_once, 1, 7), changed_ns = ?1,"
        " reason = iif(at_least_once, '', ?3), ended = iif(at_least_once, NULL, ?2) WHERE state = 2",
        (now.wall, now.age, Reason.OUTCOME_UNKNOWN.name),
    )
    return connection.changes()


def cancel(connection: apsw.Connection, id_: int, now: Now) -> None:
    """Cancel an entry if it waits."""
    connection.execute(
        "UPDATE entries SET state = 5, changed_ns = ?2, ended = ?3 WHERE id = ?1 AND state = 1",
        (id_, now.wall, now.age),
    )


def expire(connection: apsw.Connection, now: Now) -> bool:
    """Expire some entries that are due; return whether there may be more."""
    connection.execute(
        "UPDATE entries SET state = 4, changed_ns = ?1, ended = ?2 WHERE id IN ("
        " SELECT id FROM entries WHERE state = 1 AND expires <= ?2 ORDER BY expires LIMIT ?3)",
        (now.wall, now.age, _AT_ONCE),
    )
    return connection.changes() >= _AT_ONCE


def prune(connection: apsw.Connection, bounds: Bounds, now: Now) -> bool:
    """Delete some entries that were kept for long enough; return whether there may be more."""
    old, is_more = now.age - int(bounds.keep_time * 1e9), False
    for caller, ended in connection.execute("SELECT id, ended FROM callers WHERE ended > 0").fetchall():
        excess = min(_AT_ONCE, max(0, number(ended) - bounds.keep_entries))
        # Only the first are looked at: they are the oldest. What was not told yet is kept.
        connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM ("
            " SELECT id, ended, ending, is_direct, row_number() OVER (ORDER BY ending) AS place FROM entries"
            " WHERE caller = ?1 AND ending IS NOT NULL ORDER BY ending LIMIT ?2"
            ") WHERE (ended < ?3 OR place <= ?4)"
            " AND (is_direct OR ending <= (SELECT value FROM meta WHERE name = 'told')))",
            (caller, _AT_ONCE, old, excess),
        )
        is_more = is_more or connection.changes() >= _AT_ONCE
    return is_more


def _in_places(values: Sequence[str] | Sequence[bytes]) -> Iterator[tuple[list[str | bytes], str]]:
    """Cut values into parts, and give each a list of as many question marks; few lengths, so that SQLite knows them."""
    for at in range(0, len(values), _MOST_PLACES):
        some: list[str | bytes] = list(values[at : at + _MOST_PLACES])
        wanted = next(size for size in (1, 8, 64, _MOST_PLACES) if size >= len(some))
        some += [some[-1]] * (wanted - len(some))
        yield some, ", ".join("?" * wanted)


def _reused() -> RelayError:
    return RelayError(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "This caller has used this idempotency key before, for another message. Nothing was done. Use a new key for"
        " each message, and the same key only to repeat a request.",
        field="idempotency_key",
    )
