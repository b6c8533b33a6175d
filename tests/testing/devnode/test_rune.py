"""Runes, as values."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_testing.devnode.rune import CONDITIONS, Alternative, Rune

SECRET = bytes(range(32))

alternatives = st.builds(
    Alternative,
    st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8),
    st.sampled_from(sorted(CONDITIONS)),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
restrictions = st.lists(st.lists(alternatives, min_size=1, max_size=3).map(tuple), max_size=4)
ID = (Alternative("", "=", "7"),)


@given(restrictions)
def test_what_is_written_is_read_back(some: list[tuple[Alternative, ...]]) -> None:
    """Whatever the values hold, escapes included; and it is the node's own."""
    rune = Rune.derive(SECRET, [ID, *some])
    again = Rune.parse(rune.encode())
    assert again == rune
    assert again.unique_id == "7"
    assert again.is_derived_from(SECRET)
    assert not again.is_derived_from(b"another")


@given(restrictions, alternatives)
def test_nothing_can_be_taken_off(some: list[tuple[Alternative, ...]], last: Alternative) -> None:
    """The code of a longer rune is not that of a shorter one."""
    rune = Rune.derive(SECRET, [ID, *some, (last,)])
    assert not Rune(rune.code, rune.restrictions[:-1]).is_derived_from(SECRET)


@given(st.text(max_size=120) | st.binary(max_size=90).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_read_or_refused(text: str) -> None:
    """With a ValueError, never with another error."""
    with suppress(ValueError):
        assert Rune.parse(text).encode()


def test_a_rune_is_known_by_its_id_alone() -> None:
    """Its repr is no credential."""
    rune = Rune.derive(SECRET, [ID])
    assert repr(rune) == "Rune(unique_id=7)"


def test_the_reference_vector_holds() -> None:
    """From the test vectors of ccan/rune: the empty rune of a secret of 16 zero bytes."""
    assert Rune.derive(bytes(16), []).code.hex() == (
        "374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb"
    )


@pytest.mark.parametrize("text", ["", "abc", "é=", "="])
def test_a_condition_needs_a_field_and_an_operator(text: str) -> None:
    """A field may be empty only for the id."""
    if text == "=":
        assert Alternative.parse(text).field == ""
        return
    with pytest.raises(ValueError, match="no field"):
        Alternative.parse(text)
