"""Conversions of LND's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.api.dialects import lnd_convert as convert
from custommsg_server.api.dialects.protos import lnd_pb2 as pb
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.node.port import NodeInfo, PeerAddress
from support.keys import node_id

OURS = NodeInfo(node_id(2), "A", "regtest", "v26.06.6")


def read(host: str) -> PeerAddress:
    """Parse the address of a valid peer."""
    return convert.address_from_proto(pb.LightningAddress(pubkey=node_id().hex(), host=host), OURS)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:19735", "127.0.0.1", 19735),
        ("127.0.0.1", "127.0.0.1", 9735),
        ("node.example.com:1", "node.example.com", 1),
        ("[::1]:65535", "::1", 65535),
        ("[2001:db8::1]", "2001:db8::1", 9735),
        ("2001:db8::1", "2001:db8::1", 9735),
        ("abc234.onion:9735", "abc234.onion", 9735),
    ],
)
def test_addresses_are_read_as_lnds_clients_write_them(text: str, host: str, port: int) -> None:
    """With or without a port, as a name or an IP address."""
    assert read(text) == PeerAddress(node_id(), host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":9735",
        "/run/node.sock",
        "autotor:127.0.0.1",
        "host:0",
        "host:65536",
        "host:",
        "host:x",
        "[::1",
        "[x]:1",
        "a b",
        "-x",
        "host:1:2",
        "::1%eth0",
        "[::1]9735",
        "x" * 256,
        "h\u00f6st",
    ],
)
def test_what_is_no_address_never_gets_to_the_node(text: str) -> None:
    """Above all not the path of a unix socket, to which lightningd would connect."""
    with pytest.raises(RelayError) as caught:
        read(text)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_NODE_ID, "addr.host")


@given(st.text() | st.from_regex(r"\A\[?[a-z0-9:.%/-]*\]?(:[0-9]*)?\Z"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """A parsed address, written as text, is parsed as the same address."""
    try:
        address = read(text)
    except RelayError:
        return
    assert 0 < address.port <= 65_535
    assert not set(address.host) & set("/ %@[]")
    assert read(str(address).partition("@")[2]) == address


@given(st.text())
def test_any_public_key_is_read_or_refused(text: str) -> None:
    """Only 66 hex digits of a point on the curve are accepted."""
    with pytest.raises(RelayError) as caught:
        convert.address_from_proto(pb.LightningAddress(pubkey=text, host="h"), OURS)
    assert caught.value.field == "addr.pubkey"


@pytest.mark.parametrize(
    ("network", "name"), [("bitcoin", "mainnet"), ("testnet", "testnet"), ("signet", "signet")]
)
def test_networks_have_lnds_names(network: str, name: str) -> None:
    """lightningd's name of mainnet is bitcoin."""
    info = convert.info_to_proto(NodeInfo(node_id(), "A", network, "v26.06.6"), [])
    assert (info.chains[0].network, info.testnet) == (name, network == "testnet")
    assert (info.color, info.synced_to_chain) == ("", False)


def test_features_are_the_union_of_all_sets() -> None:
    """An even bit is required; one without a name in LND is not known."""
    found = convert.features_to_proto([b"\x01", b"\x80", bytes.fromhex("01" + "00" * 12)])
    assert {bit: (one.name, one.is_required, one.is_known) for bit, one in found.items()} == {
        0: ("data-loss-protect", True, True),
        7: ("gossip-queries", False, True),
        96: ("unknown", True, False),
    }
