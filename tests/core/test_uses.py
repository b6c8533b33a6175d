"""Actions of callers as methods and parameters for runes."""

from __future__ import annotations

from custommsg_server.core.uses import LIST, event_use, send_use, subscribe_use
from custommsg_server.domain.caller import Use
from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.domain.wire import join_message
from custommsg_server.node.port import Outbound
from support.inboxes import ALICE, arrival
from support.keys import node_id


def test_a_send_is_named_as_lightning_cli_names_it() -> None:
    """Both parameters are hex."""
    outbound = Outbound(node_id(), join_message(37913, b"\x01"))
    assert send_use(outbound) == Use("sendcustommsg", {"node_id": node_id().hex(), "msg": "941901"})


def test_what_is_not_said_is_not_a_parameter() -> None:
    """Then a restriction on it fails with "not present"."""
    assert subscribe_use(None, None, None) == Use("subscribecustommsg", {})
    assert subscribe_use(ALICE, 7, "shop", LIST) == Use(
        "listevents", {"node_id": ALICE.hex(), "msg": "0007", "type": 7, "consumer": "shop"}
    )


def test_an_event_is_seen_by_its_peer_and_type() -> None:
    """A restriction to a type works for senders and for subscribers; peer events have no type."""
    assert event_use(arrival(peer_id=ALICE, message_type=37913), None) == Use(
        "subscribecustommsg", {"node_id": ALICE.hex(), "msg": "9419", "type": 37913}
    )
    assert event_use(Arrival(Kind.CONNECTED, 1, ALICE), "shop") == Use(
        "subscribecustommsg", {"node_id": ALICE.hex(), "consumer": "shop"}
    )
