"""The event of an entry that has ended."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.outbox import Ending, State, arrival_of, ending_of

endings = st.builds(
    Ending,
    number=st.just(0),
    entry_id=st.text(max_size=40),
    peer_id=st.binary(min_size=33, max_size=33),
    message_type=st.integers(0, 65_535),
    state=st.sampled_from(State),
    reason=st.sampled_from(["", "NOT_PERMITTED"]),
    key=st.text(max_size=100),
    time_ns=st.integers(0, 2**62),
)


@given(endings)
def test_an_ending_comes_back_from_its_event(ending: Ending) -> None:
    """Whatever its key and its id are."""
    assert ending_of(arrival_of(ending, b"")) == ending


@given(st.binary(min_size=2, max_size=200))
def test_what_is_no_event_of_the_outbox_is_refused(content: bytes) -> None:
    """With a ValueError, and nothing else."""
    with contextlib.suppress(ValueError):
        ending_of(Arrival(Kind.OUTBOX, 1, b"", content))
