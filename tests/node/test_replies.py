"""lightningd's recorded replies, and the reasons for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.node.lightningd import replies
from custommsg_server.node.port import Announcement, Connected, NetAddress, NodeInfo, Peer
from support.keys import node_id

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "sendcustommsg.json").read_text())

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
peers_of_any_shape = st.lists(
    st.fixed_dictionaries(
        {"id": st.just(node_id().hex()), "connected": st.booleans()},
        optional={"netaddr": json_values, "num_channels": json_values, "features": json_values},
    ),
    max_size=2,
)
replies_of_any_shape = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "result": json_values
        | st.fixed_dictionaries(
            {},
            optional={"status": json_values, "peers": json_values, "id": json_values, "version": json_values},
        ),
        "error": json_values
        | st.fixed_dictionaries({}, optional={"code": json_values, "message": json_values}),
    },
)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: str(golden["case"]))
def test_each_recorded_reply_becomes_its_reason(golden: dict[str, Any]) -> None:
    """By their texts, since nearly all have the same code."""
    outcome = replies.outcome_of(golden["reply"])
    if golden["reason"] is None:
        assert outcome == golden["reply"]["result"]["status"]
        return
    assert isinstance(outcome, RelayError)
    assert outcome.reason is Reason[golden["reason"]]
    assert outcome.metadata == golden.get("metadata", {})


@pytest.mark.parametrize(
    "read",
    [
        replies.outcome_of,
        replies.peers_of,
        replies.info_of,
        replies.result_of_connect,
        replies.announcement_of,
    ],
)
@given(reply=replies_of_any_shape)
def test_a_reply_of_any_shape_is_read_or_refused(read: Any, reply: dict[str, Any]) -> None:
    """For any reply, the caller gets a result or a reason, never another exception."""
    try:
        found = read(reply)
    except RelayError as error:
        found = error
    assert not isinstance(found, RelayError) or found.reason in set(Reason)


@given(peers=peers_of_any_shape)
def test_what_a_reply_says_of_peers_may_have_any_shape(peers: list[Any]) -> None:
    """Each peer is in the list all the same, with what could be read."""
    found = replies.peers_of({"result": {"peers": peers}})
    assert [one.peer_id for one in found] == [node_id()] * len(peers)
    assert all(0 <= one.num_channels < 1 << 32 and one.address.encode() is not None for one in found)


def test_peers_are_read_as_listpeers_prints_them() -> None:
    """A peer that is not connected has no address."""
    connected = {
        "id": node_id().hex(),
        "connected": True,
        "num_channels": 2,
        "netaddr": ["127.0.0.1:19738"],
        "features": "08",
    }
    away = {"id": node_id(2).hex(), "connected": False, "num_channels": 1}
    assert replies.peers_of({"result": {"peers": [connected, away]}}) == [
        Peer(node_id(), True, "127.0.0.1:19738", 2, b"\x08"),
        Peer(node_id(2), False, "", 1),
    ]


def test_the_node_describes_itself_with_getinfo() -> None:
    """What the gateway keeps of it."""
    result: dict[str, Any] = {
        "id": node_id().hex(),
        "alias": "A",
        "network": "regtest",
        "version": "v26.06.6",
    }
    identity = (node_id(), "A", "regtest", "v26.06.6")
    assert replies.info_of({"result": result}) == NodeInfo(*identity, is_synced=True)
    result |= {"color": "02bf81", "blockheight": 7, "num_active_channels": 1, "num_pending_channels": 2}
    result |= {
        "num_inactive_channels": 3,
        "warning_lightningd_sync": "Still loading latest blocks from bitcoind.",
    }
    result |= {
        "num_peers": 4,
        "address": [
            {"type": "ipv6", "address": "2001:db8::1", "port": 9735},
            {"type": "websocket", "port": 1},
        ],
        "our_features": {"init": "08a0", "node": "", "channel": "zz", "invoice": "02"},
    }
    assert replies.info_of({"result": result}) == NodeInfo(
        *(*identity, "02bf81", 7, False, 1, 3, 2, 4),
        addresses=(NetAddress("ipv6", "2001:db8::1", 9735),),
        features={"init": b"\x08\xa0", "node": b"", "channel": b"", "invoice": b"\x02"},
    )


def test_a_node_is_read_as_listnodes_prints_it() -> None:
    """A node of which only channels are known has no more than its id; one that is not known is None."""
    known: dict[str, Any] = {
        "nodeid": node_id().hex(),
        "alias": "B",
        "color": "02bf81",
        "last_timestamp": 7,
        "features": "08",
    }
    known["addresses"] = [{"type": "torv3", "address": "x.onion", "port": 9735}]
    assert replies.announcement_of({"result": {"nodes": [known]}}) == Announcement(
        node_id(), 7, "B", "02bf81", b"\x08", (NetAddress("torv3", "x.onion", 9735),)
    )
    assert replies.announcement_of({"result": {"nodes": [{"nodeid": node_id().hex()}]}}) == Announcement(
        node_id()
    )
    assert replies.announcement_of({"result": {"nodes": []}}) is None
    known["alias"] = "\ud800"  # half of a character: protobuf cannot encode it
    found = replies.announcement_of({"result": {"nodes": [known]}})
    assert found is not None
    assert found.alias == "?"


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (-32602, "Unknown peer '02...'", Reason.PEER_UNKNOWN),
        (-1, "Peer not connected", Reason.PEER_NOT_CONNECTED),
        (-1, "Peer has (at least one) channel in state CHANNELD_NORMAL", Reason.NODE_ERROR),
    ],
)
def test_a_disconnect_that_fails_says_why(code: int, message: str, reason: Reason) -> None:
    """The texts of lightningd/connect_control.c."""
    assert replies.error_of({"code": code, "message": message}).reason is reason


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "Unable to connect, no address known for peer"),
        (401, "All addresses failed: 127.0.0.1:1: Connection establishment: Connection refused. "),
        (402, "disconnected during connection"),
        (-1, "Host nosuch:9735 not valid: Unable to resolve"),
    ],
)
def test_a_connect_that_fails_says_why(code: int, message: str) -> None:
    """With the node's text."""
    with pytest.raises(RelayError, match="could not connect") as caught:
        replies.result_of_connect({"error": {"code": code, "message": message}})
    assert caught.value.reason is Reason.PEER_NOT_CONNECTED
    assert message in caught.value.message


def test_a_connect_that_succeeds_or_fails_otherwise_is_read_as_any_reply() -> None:
    """What is no failure to connect is an error of the node."""
    result: dict[str, Any] = {"id": "02", "features": "08", "direction": "in"}
    result["address"] = {"type": "ipv4", "address": "127.0.0.1", "port": 1}
    expected = Connected(b"\x08", True, NetAddress("ipv4", "127.0.0.1", 1))
    assert replies.result_of_connect({"result": result}) == expected
    with pytest.raises(RelayError) as caught:
        replies.result_of_connect({"error": {"code": -32602, "message": "port: should be a 16-bit integer"}})
    assert caught.value.reason is Reason.NODE_ERROR
