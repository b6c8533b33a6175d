"""Which events pass a filter."""

from __future__ import annotations

import pytest

from custommsg_server.inbox.filter import Filter
from custommsg_server.inbox.port import Arrival, Kind
from support.inboxes import ALICE, BOB, arrival

MESSAGE = arrival(node_id=ALICE, message_type=37913)
CONNECTED = arrival(kind=Kind.CONNECTED, node_id=ALICE)
ONLY_MESSAGES = frozenset({Kind.MESSAGE})


@pytest.mark.parametrize(
    ("wanted", "what", "passes"),
    [
        (Filter(), MESSAGE, True),
        (Filter(), CONNECTED, True),
        (Filter(node_ids=frozenset({ALICE})), MESSAGE, True),
        (Filter(node_ids=frozenset({ALICE, BOB})), CONNECTED, True),
        (Filter(node_ids=frozenset({BOB})), MESSAGE, False),
        (Filter(node_ids=frozenset({BOB})), CONNECTED, False),
        (Filter(types=(range(37913, 37914),)), MESSAGE, True),
        (Filter(types=(range(5), range(37000, 38000))), MESSAGE, True),
        (Filter(types=(range(37913),)), MESSAGE, False),
        (Filter(types=(range(5),)), CONNECTED, True),
        (Filter(kinds=ONLY_MESSAGES), MESSAGE, True),
        (Filter(kinds=ONLY_MESSAGES), CONNECTED, False),
        (Filter(frozenset({BOB}), (range(37913, 37914),)), MESSAGE, False),
    ],
)
def test_a_filter_passes_what_satisfies_every_field(wanted: Filter, what: Arrival, passes: bool) -> None:
    """An empty field is satisfied by everything; peer events have no type and are not held to one."""
    assert wanted.passes(what) is passes


def test_an_interruption_always_passes() -> None:
    """It says that something may be missing, whatever was wanted."""
    wanted = Filter(frozenset({BOB}), (range(1),), ONLY_MESSAGES)
    assert wanted.passes(Arrival(Kind.INTERRUPTION, 1, lost=3))
