"""What is read from cln-grpc's messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.api.dialects import cln_convert as convert
from custommsg_server.api.dialects.protos import cln_pb2 as pb
from custommsg_server.domain.errors import Reason, RelayError
from custommsg_server.node.port import Connected, NetAddress, PeerAddress
from support.keys import NOT_A_POINT, node_id

ID = node_id().hex()


@pytest.mark.parametrize(
    ("request_", "host", "port"),
    [
        ({"id": ID}, "", 0),
        ({"id": f"{ID}@h"}, "h", 0),
        ({"id": f"{ID}@[::1]:7"}, "::1", 7),
        ({"id": ID, "host": "h"}, "h", 0),
        ({"id": ID, "host": "h:7"}, "h", 7),
        ({"id": ID, "host": "::1", "port": 7}, "::1", 7),
    ],
)
def test_addresses_are_read_as_lightningd_reads_them(request_: dict[str, Any], host: str, port: int) -> None:
    """lightningd chooses what is not given."""
    address = convert.address_from_proto(pb.ConnectRequest(**request_))
    assert address == PeerAddress(node_id(), host, port)
    expected = {"id": ID} | ({"host": host} if host else {}) | ({"port": port} if port else {})
    assert address.params == expected


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"id": "zz"}, "id"),
        ({"id": NOT_A_POINT.hex()}, "id"),
        ({"id": f"{ID}@"}, "id"),
        ({"id": f"{ID}@/run/node.sock"}, "id"),
        ({"id": f"{ID}@h:0"}, "id"),
        ({"id": ID, "host": "/run/node.sock"}, "host"),
        ({"id": ID, "host": "h", "port": 65_536}, "host"),
        ({"id": ID, "port": 9735}, "port"),
        ({"id": f"{ID}@h", "host": "h"}, "host"),
    ],
)
def test_what_is_no_address_never_gets_to_the_node(request_: dict[str, Any], field: str) -> None:
    """Above all no path of a unix socket, which lightningd would connect to."""
    with pytest.raises(RelayError) as caught:
        convert.address_from_proto(pb.ConnectRequest(**request_))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_NODE_ID, field)


@given(st.text() | st.text().map(f"{ID}@".__add__), st.text(), st.integers(0, (1 << 32) - 1))
def test_any_text_is_an_address_or_refused(text: str, host: str, port: int) -> None:
    """No other exception, and nothing but host names and IP addresses."""
    try:
        address = convert.address_from_proto(pb.ConnectRequest(id=text, host=host, port=port))
    except RelayError:
        return
    assert not set(address.host) & set("/ %@[]")
    assert 0 <= address.port <= 65_535


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (NetAddress("ipv4", "127.0.0.1", 1), "IPV4"),
        (NetAddress("torv3", "x.onion", 1), "TORV3"),
        (NetAddress("local socket", "/run/x", 0), "LOCAL_SOCKET"),
    ],
)
def test_kinds_of_addresses_have_cln_grpcs_names(address: NetAddress, kind: str) -> None:
    """A unix socket has a path, and no port."""
    made = convert.connected_to_proto(node_id(), Connected(b"\x08", True, address))
    assert made.address.item_type == pb.ConnectAddress.ConnectAddressType.Value(kind)
    assert (made.address.socket or made.address.address) == address.host
    assert made.address.HasField("port") == bool(address.port)
    assert made.direction == pb.ConnectResponse.IN
