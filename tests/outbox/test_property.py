"""The SQLite outbox against a model of a few lines, under any sequence of calls, restarts and kills."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from custommsg_server.domain.outbox import Outcome, State
from custommsg_server.outbox.port import Enqueued, Wanted
from support.inboxes import fast_directory
from support.keys import node_id
from support.outboxes import Opener, draft, number_in, take

PEERS = [node_id(n) for n in (1, 2, 3)]
ENDS = [State.SENT, State.FAILED, State.UNKNOWN, State.WAITING_FOR_PEER]

enqueue = st.tuples(
    st.just("enqueue"),
    st.sampled_from(["a", "b"]),
    st.lists(
        st.tuples(
            st.sampled_from(PEERS),
            st.sampled_from(["", "", "k", "l"]),
            st.booleans(),
            st.sampled_from([5.0, 1000.0]),
        ),
        min_size=1,
        max_size=70,
    ),
)
taking = st.tuples(st.just("take"), st.sampled_from(PEERS), st.integers(1, 8))
settle = st.tuples(st.just("settle"), st.lists(st.sampled_from(ENDS), min_size=1, max_size=8))
cancel = st.tuples(st.just("cancel"), st.integers(0, 50))
passes = st.tuples(st.just("passes"), st.sampled_from([1.0, 6.0]))
restart = st.tuples(st.just("restart"))
operations = st.lists(st.one_of(enqueue, taking, settle, cancel, passes, restart), max_size=30)


@dataclass
class Known:
    """What the model knows of an entry."""

    number: int
    peer_id: bytes
    at_least_once: bool
    expires: float
    state: State = State.WAITING_FOR_PEER


@dataclass
class Model:
    """An outbox in memory."""

    entries: dict[str, Known] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    now: float = 0.0
    numbers: int = 0

    def end(self, entry_id: str, state: State) -> None:
        """Give an entry a state."""
        self.entries[entry_id].state = state
        if state.is_final:
            self.ended.append(entry_id)

    def waiting(self, peer_id: bytes, most: int) -> list[str]:
        """Return what can be taken."""
        found = [
            id_
            for id_, one in self.entries.items()
            if one.state is State.WAITING_FOR_PEER and one.peer_id == peer_id
        ]
        return [id_ for id_ in found[:most] if self.entries[id_].expires > self.now]


async def play(path: Path, steps: list[Any]) -> None:
    """Do the same with the engine and with the model, and compare."""
    opener, model = Opener(path / "outbox.sqlite3"), Model()
    stack = AsyncExitStack()
    outbox = await stack.enter_async_context(opener.outbox())
    for kind, *what in steps:
        match kind:
            case "enqueue":
                caller, asked = what
                drafts = []
                for peer_id, key, again, lifetime in asked:
                    model.numbers += 1
                    drafts.append(
                        draft(model.numbers, peer_id, key=key, at_least_once=again, lifetime=lifetime)
                    )
                for one, result in zip(drafts, await outbox.enqueue(caller, "c", drafts), strict=True):
                    if one.key and (caller, one.key) in model.keys:
                        assert not isinstance(result, Enqueued), "each number is another message"
                        continue
                    assert isinstance(result, Enqueued)
                    assert result.is_new
                    assert result.entry_id not in model.entries
                    model.entries[result.entry_id] = Known(
                        number_in(one.message), one.peer_id, one.at_least_once, model.now + one.lifetime
                    )
                    if one.key:
                        model.keys[caller, one.key] = result.entry_id
            case "take":
                peer_id, most = what
                taken = await take(outbox, peer_id, "", most, 1 << 20)
                expected = model.waiting(peer_id, most)
                assert [one.entry_id for one in taken] == expected
                assert [number_in(one.message) for one in taken] == [
                    model.entries[one].number for one in expected
                ]
                for one_id in expected:
                    model.entries[one_id].state = State.SENDING
                model.taken += expected
            case "settle":
                ends, model.taken = model.taken[: len(what[0])], model.taken[len(what[0]) :]
                outcomes = [Outcome(one, end) for one, end in zip(ends, what[0], strict=False)]
                await outbox.settle(outcomes)
                for outcome in sorted(outcomes):
                    model.end(outcome.entry_id, outcome.state)
            case "cancel":
                if model.entries:
                    entry_id = list(model.entries)[what[0] % len(model.entries)]
                    entry = await outbox.cancel(entry_id)
                    if model.entries[entry_id].state is State.WAITING_FOR_PEER:
                        model.end(entry_id, State.CANCELLED)
                    assert entry is not None
                    assert entry.state is model.entries[entry_id].state
            case "passes":
                model.now += what[0]
                opener.clock.passes(what[0])
                while await outbox.tidy():
                    pass
                for one_id, known in model.entries.items():
                    if known.state is State.WAITING_FOR_PEER and known.expires <= model.now:
                        model.end(one_id, State.EXPIRED)
            case "restart":
                await stack.aclose()
                for one_id, known in model.entries.items():
                    if known.state is State.SENDING:
                        again = known.at_least_once
                        model.end(one_id, State.WAITING_FOR_PEER if again else State.UNKNOWN)
                model.taken = []
                outbox = await stack.enter_async_context(opener.outbox())
    await agree(outbox, model)
    await stack.aclose()


async def agree(outbox: Any, model: Model) -> None:
    """Compare every entry, what is counted, who is waited for, and the endings."""
    page = await outbox.page(Wanted(), "", 10_000)
    assert {entry.id: entry.state for entry in page.entries} == {
        id_: known.state for id_, known in model.entries.items()
    }
    waiting = [known for known in model.entries.values() if not known.state.is_final]
    counts = await outbox.counts()
    assert (counts.waiting, counts.waiting_size, counts.ended) == (
        len(waiting),
        310 * len(waiting),
        len(model.ended),
    )
    assert list(await outbox.waiting_for(b"", 10)) == sorted({known.peer_id for known in waiting})
    endings = await outbox.endings(10_000)
    assert sorted(one.entry_id for one in endings) == sorted(model.ended)
    assert [one.number for one in endings] == list(range(1, len(endings) + 1))
    assert all(one.state is model.entries[one.entry_id].state for one in endings)


@settings(deadline=None, max_examples=60)
@given(operations)
def test_the_engine_does_what_the_model_does(steps: list[Any]) -> None:
    """Every entry is in the state that the model has it in, whatever came before."""
    with fast_directory() as folder:
        asyncio.run(play(folder, steps))
