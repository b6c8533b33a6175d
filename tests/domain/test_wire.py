"""The rules for node ids and messages."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason, RelayError
from support.keys import NOT_A_POINT, node_id


def test_internal_types_are_the_fifty_that_lightningd_handles() -> None:
    """The set was recorded from v26.06; 7 and 9, peer storage, are not in it."""
    listed = [0, 1, 2, *range(16, 20), *range(32, 37), *range(38, 42), *range(64, 75), 77, 80, 81, 127, 128]
    listed += [*range(130, 138), *range(256, 260), *range(261, 266), 513]
    assert sorted(wire.INTERNAL_TYPES) == listed
    assert len(listed) == 50
    assert wire.INTERNAL_TYPES[18] == "WIRE_PING"


@given(st.binary(max_size=80))
@example(b"")
@example(NOT_A_POINT)
def test_only_compressed_points_are_node_ids(raw: bytes) -> None:
    """Arbitrary bytes are a node id only if they are a compressed point."""
    try:
        parsed = wire.parse_node_id(raw)
    except RelayError as error:
        assert error.reason is Reason.INVALID_NODE_ID
    else:
        assert len(parsed) == 33
        assert parsed[0] in (2, 3)


def test_an_uncompressed_point_is_no_node_id() -> None:
    """65 bytes of a point on the curve are not a node id."""
    import coincurve

    with pytest.raises(RelayError, match="65 bytes"):
        wire.parse_node_id(coincurve.PublicKey(node_id()).format(compressed=False))


@pytest.mark.parametrize("text", ["", "0", "zz" * 33, " " + "02" * 32 + " ", "٠٢" * 33, "02" * 34])
def test_text_that_is_no_hex_node_id_is_refused(text: str) -> None:
    """Spaces, an odd number of digits, digits of other scripts: nothing is skipped."""
    with pytest.raises(RelayError) as caught:
        wire.parse_node_id_hex(text)
    assert caught.value.reason is Reason.INVALID_NODE_ID


def test_hex_may_be_of_either_case() -> None:
    """As in lightningd."""
    assert wire.parse_node_id_hex(node_id().hex().upper()) == node_id()


@given(st.integers(0, wire.MAX_TYPE), st.binary(max_size=70))
def test_a_message_is_its_type_and_its_payload(number: int, payload: bytes) -> None:
    """Joining and parsing agree, unless the node handles the type itself."""
    try:
        message = wire.join_message(number, payload)
    except RelayError as error:
        assert error.reason is Reason.INTERNAL_MESSAGE_TYPE
        assert error.metadata == {"type": str(number), "name": wire.INTERNAL_TYPES[number]}
    else:
        assert wire.message_type(message) == number
        assert message[2:] == payload
        assert wire.parse_message_hex(message.hex()) == message


@pytest.mark.parametrize("size", [0, 1, 65_536, 100_002])
def test_messages_of_sizes_that_kill_lightningd_are_refused(size: int) -> None:
    """The sizes on which lightningd crashes, and those next to them."""
    with pytest.raises(RelayError) as caught:
        wire.parse_message(b"\x80" * size)
    assert caught.value.reason is Reason.INVALID_MESSAGE


@pytest.mark.parametrize("size", [2, 3, 65_534, 65_535])
def test_messages_of_every_allowed_size_pass(size: int) -> None:
    """Including both ends of the range."""
    assert len(wire.parse_message(b"\x80" * size)) == size


@given(st.text(max_size=20))
def test_unhex_takes_hex_digits_and_nothing_else(text: str) -> None:
    """Valid text is what Python writes as hex, in upper or lower case."""
    try:
        raw = wire.unhex(text)
    except ValueError as error:
        assert text not in str(error) or not text.strip() or len(text) < 3
    else:
        assert raw.hex() == text.lower()


@pytest.mark.parametrize("number", [-1, 65_536, 2**32 - 1])
def test_types_beyond_two_bytes_are_refused(number: int) -> None:
    """A type is a 2-byte number."""
    with pytest.raises(RelayError) as caught:
        wire.join_message(number, b"")
    assert caught.value.reason is Reason.INVALID_MESSAGE
