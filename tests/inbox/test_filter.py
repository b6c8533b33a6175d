"""Which events pass a filter."""

from __future__ import annotations

import pytest

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.types import TypeSet
from custommsg_server.inbox.filter import Filter
from support.inboxes import ALICE, BOB, arrival

MESSAGE = arrival(peer_id=ALICE, message_type=37913)
CONNECTED = arrival(kind=Kind.CONNECTED, peer_id=ALICE)
OF_ALICE, OF_BOTH, OF_BOB = frozenset({ALICE}), frozenset({ALICE, BOB}), frozenset({BOB})


@pytest.mark.parametrize(
    ("wanted", "what", "passes"),
    [
        (Filter(), MESSAGE, True),
        (Filter(), CONNECTED, False),
        (Filter(peer_events=True), CONNECTED, True),
        (Filter(peer_ids=OF_ALICE), MESSAGE, True),
        (Filter(peer_ids=OF_BOTH, peer_events=True), CONNECTED, True),
        (Filter(peer_ids=OF_BOB), MESSAGE, False),
        (Filter(peer_ids=OF_BOB, peer_events=True), CONNECTED, False),
        (Filter(peer_ids=frozenset()), MESSAGE, False),
        (Filter(types=TypeSet([range(37913, 37914)])), MESSAGE, True),
        (Filter(types=TypeSet([range(5), range(37000, 38000)])), MESSAGE, True),
        (Filter(types=TypeSet([range(37913)])), MESSAGE, False),
        (Filter(types=TypeSet([])), MESSAGE, False),
        (Filter(types=TypeSet([range(5)]), peer_events=True), CONNECTED, True),
        (Filter(OF_BOB, TypeSet([range(37913, 37914)])), MESSAGE, False),
    ],
)
def test_a_filter_passes_what_satisfies_every_field(wanted: Filter, what: Arrival, passes: bool) -> None:
    """A field that is not set matches all events; the type does not apply to peer events."""
    assert wanted.passes(what) is passes


def test_an_interruption_passes_unless_it_concerns_another_peer() -> None:
    """It says that events may be missing, whatever types are wanted."""
    wanted = Filter(OF_BOB, TypeSet([range(1)]))
    assert wanted.passes(Arrival(Kind.INTERRUPTION, 1, lost=3))
    assert wanted.passes(arrival(kind=Kind.INTERRUPTION, peer_id=BOB))
    assert not wanted.passes(arrival(kind=Kind.INTERRUPTION, peer_id=ALICE))
