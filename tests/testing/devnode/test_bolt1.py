"""BOLT 1: init, ping and pong, warnings."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from custommsg_testing.devnode import bolt1
from custommsg_testing.devnode.bolt1 import BadMessageError, Init

chain_hashes = st.binary(min_size=32, max_size=32)
inits = st.builds(
    Init,
    st.binary(max_size=300).map(lambda raw: raw.lstrip(b"\0")),
    st.none() | st.lists(chain_hashes, max_size=10).map(tuple),
)


@given(inits)
def test_an_init_comes_out_as_it_went_in(init: Init) -> None:
    """Also with so many networks that the length of the record needs three bytes."""
    assert Init.decode(init.encode()) == init


@given(inits, st.data())
def test_an_init_that_is_cut_short_is_refused_or_has_lost_whole_records(
    init: Init, data: st.DataObject
) -> None:
    """Never another error."""
    encoded = init.encode()
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with suppress(BadMessageError):
        assert Init.decode(cut).networks is None


@given(st.binary(max_size=100))
@example(b"\0\xff" + b"\xff" * 8)  # a record of 2^64-1 bytes
def test_arbitrary_bytes_are_an_init_or_refused(data: bytes) -> None:
    """A peer may send anything."""
    for message in (data, b"\0\x10" + data, b"\0\x10\0\0\0\0" + data):
        with suppress(BadMessageError):
            Init.decode(message)


def test_the_two_fields_of_features_are_one() -> None:
    """BOLT 1: the fields are combined with a logical or."""
    assert Init.decode(bytes.fromhex("0010 0002 0200 0001 02".replace(" ", ""))).features == b"\x02\x02"


@pytest.mark.parametrize(
    ("tlvs", "why"),
    [
        ("0401ff", "unknown even TLV record"),
        ("0301ff0301ff", "out of order"),
        ("fd000101", "shortest form"),
        ("0105ff", "ends too early"),
        ("03", "ends within a TLV record"),
        ("0101ff", "not a multiple of 32"),
    ],
)
def test_a_malformed_stream_of_records_is_refused(tlvs: str, why: str) -> None:
    """The rules of BOLT 1 on TLV streams."""
    with pytest.raises(BadMessageError, match=why):
        Init.decode(bytes.fromhex("001000000000" + tlvs))


def test_an_unknown_odd_record_is_ignored() -> None:
    """It's OK to be odd."""
    assert Init.decode(bytes.fromhex("0010000000000302ffff")).networks is None


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 0), (5, 5), (65_531, 65_531), (65_532, None), (65_535, None)]
)
def test_a_pong_is_as_long_as_asked_for(asked: int, given: int | None) -> None:
    """65,532 bytes and more mean that no answer is wanted."""
    answer = bolt1.pong(b"\0\x12" + asked.to_bytes(2, "big") + b"\0\0")
    assert answer == (None if given is None else b"\0\x13" + given.to_bytes(2, "big") + bytes(given))


@pytest.mark.parametrize("ping", ["0012", "001200010001", "0012000100"])
def test_a_malformed_ping_is_refused(ping: str) -> None:
    """It must hold a length, and as many bytes as that says."""
    with pytest.raises(BadMessageError):
        bolt1.pong(bytes.fromhex(ping))


@given(st.text())
def test_a_warning_keeps_its_text(text: str) -> None:
    """Apart from characters that must not get into a log."""
    message = bolt1.warning(text)
    assert message[:34] == b"\0\1" + bytes(32)
    printable = "".join(c if c.isprintable() else "?" for c in text)
    assert bolt1.text_of(message) == printable


def test_a_warning_is_cut_to_what_a_message_can_hold() -> None:
    """It quotes messages of any length, in hex."""
    assert len(bolt1.warning("x" * 131_070)) == 65_535
