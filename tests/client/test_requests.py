"""What the client accepts as an address, a node id and a message, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import custommsg
from custommsg import Reason
from custommsg._core import send_request, target
from support.client_gateway import PEER


def request(peer: Any = PEER, **message: Any) -> Any:
    parts: dict[str, Any] = {"type": None, "payload": None, "msg": None} | message
    return send_request(peer, our_node=None, validate_only=False, **parts).message


@given(st.binary(max_size=70) | st.text(max_size=140) | st.text("0123456789abcdefABCDEF", max_size=140))
def test_a_node_id_is_33_bytes_or_their_hex(peer: bytes | str) -> None:
    """Whatever is given: the 33 bytes it means, or INVALID_NODE_ID with the field."""
    expected = plain_unhex(peer) if isinstance(peer, str) else peer
    if expected is not None and len(expected) == 33:
        assert request(peer, msg=b"\x94\x19").peer_id == expected
    else:
        with pytest.raises(custommsg.InvalidRequest) as caught:
            request(peer, msg=b"\x94\x19")
        assert caught.value.reason is Reason.INVALID_NODE_ID
        assert [violation.field for violation in caught.value.violations] == ["peer_id"]


@given(st.binary(min_size=33, max_size=33))
def test_a_node_id_in_hex_is_the_same_node_id(raw: bytes) -> None:
    """Hex of either case means the bytes."""
    assert (
        request(raw.hex(), msg="9419") == request(raw.hex().upper(), msg="9419") == request(raw, msg="9419")
    )


@given(st.binary(max_size=5) | st.text(max_size=10) | st.text("0123456789abcdefABCDEF", max_size=10))
def test_a_message_is_bytes_or_their_hex(msg: bytes | str) -> None:
    """Whatever is given: the bytes it means, or INVALID_MESSAGE with the field."""
    expected = plain_unhex(msg) if isinstance(msg, str) else msg
    if expected is not None and len(expected) >= 2:
        assert request(msg=msg).msg == expected
    else:
        with pytest.raises(custommsg.InvalidRequest) as caught:
            request(msg=msg)
        assert caught.value.reason is Reason.INVALID_MESSAGE
        assert [violation.field for violation in caught.value.violations] == ["msg"]


@given(type=st.integers(), payload=st.binary(max_size=100))
def test_type_and_payload_make_the_message(type: int, payload: bytes) -> None:
    """The type comes first, as 2 bytes, big-endian; a larger number is not a type."""
    if 0 <= type <= 65_535:
        assert request(type=type, payload=payload).msg == bytes([type >> 8, type & 255]) + payload
    else:
        with pytest.raises(custommsg.InvalidRequest) as caught:
            request(type=type, payload=payload)
        assert caught.value.reason is Reason.INVALID_MESSAGE


@pytest.mark.parametrize("size", [0, 1, 65_536, 100_002])
def test_a_message_of_an_invalid_size_never_leaves_the_client(size: int) -> None:
    """lightningd exits on such messages: the gateway refuses them, and the client does not even ask."""
    for msg in (b"\x94" * size, "94" * size):
        with pytest.raises(custommsg.InvalidRequest):
            request(msg=msg)
    assert len(request(msg=b"\x94" * 65_535).msg) == 65_535


MISTAKES: list[dict[str, Any]] = [
    {},
    {"payload": b"x"},
    {"type": 40001, "msg": b"\x94\x19"},
    {"payload": b"x", "msg": b"\x94\x19"},
    {"type": 40001, "payload": "text"},
    {"type": 40001, "payload": 5},
    {"type": 40001.5},
    {"msg": 5},
]


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_the_program_is_a_type_error(message: dict[str, Any]) -> None:
    """Arguments of a wrong type, or too many or too few of them, are not an invalid message."""
    with pytest.raises(TypeError):
        request(**message)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:9737", "localhost:1", "gateway.svc:65535", "[::1]:9737", "unix:/run/g.sock", "unix:g"],
)
def test_an_address_is_host_and_port_or_a_socket(address: str) -> None:
    """The address goes to gRPC as it is."""
    assert target(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:99999",
        "::1:9737",
        "http://a:1",
        "a b:1",
        "unix:",
        "a:1\n",
        "unix:/" + "x" * 107,
    ],
)
def test_what_grpc_would_misread_is_refused(address: str) -> None:
    """GRPC would connect to port 34463 for 99999, and to 443 for a missing one."""
    with pytest.raises(ValueError, match="not a valid gateway address"):
        target(address)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(address: str) -> None:
    """No other error is raised."""
    try:
        assert target(address) == address
    except ValueError as error:
        assert "not a valid gateway address" in str(error)


def plain_unhex(text: str) -> bytes | None:
    """Read hex the slow way: digits only, in pairs."""
    if len(text) % 2 or any(character not in "0123456789abcdefABCDEF" for character in text):
        return None
    return bytes(int(text[i : i + 2], 16) for i in range(0, len(text), 2))
