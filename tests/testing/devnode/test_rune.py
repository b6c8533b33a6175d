"""Runes, as values."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.narrowing import encode
from custommsg_server.domain.rune import CONDITIONS, Alternative, Rune
from custommsg_testing.devnode.rune import derive, is_derived_from, parse_condition

SECRET = bytes(range(32))

alternatives = st.builds(
    Alternative,
    st.text("abcdefghijklmnopqrstuvwxyz_0123456789é ", min_size=1, max_size=8),
    st.sampled_from(sorted(CONDITIONS)),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
restrictions = st.lists(st.lists(alternatives, min_size=1, max_size=3).map(tuple), max_size=4)
ID = (Alternative("", "=", "7"),)


@given(restrictions)
def test_what_is_written_is_read_back(some: list[tuple[Alternative, ...]]) -> None:
    """Whatever the values hold, escapes included; and it is the node's own."""
    rune = derive(SECRET, [ID, *some])
    again = Rune.parse(encode(rune))
    assert again == rune
    assert again.unique_id == "7"
    assert is_derived_from(again, SECRET)
    assert not is_derived_from(again, b"another")


@given(restrictions, alternatives)
def test_nothing_can_be_taken_off(some: list[tuple[Alternative, ...]], last: Alternative) -> None:
    """The code of a longer rune is not that of a shorter one."""
    rune = derive(SECRET, [ID, *some, (last,)])
    assert not is_derived_from(Rune(rune.code, rune.restrictions[:-1]), SECRET)


@given(st.text(max_size=120) | st.binary(max_size=90).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_read_or_refused(text: str) -> None:
    """With a ValueError, never with another error."""
    with suppress(ValueError):
        assert encode(Rune.parse(text))


def test_a_rune_is_known_by_its_id_alone() -> None:
    """Its repr is no credential."""
    rune = derive(SECRET, [ID])
    assert repr(rune) == "Rune(unique_id=7)"


def test_the_reference_vector_holds() -> None:
    """From the test vectors of ccan/rune: the empty rune of a secret of 16 zero bytes."""
    assert derive(bytes(16), []).code.hex() == (
        "374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb"
    )


@pytest.mark.parametrize("text", ["", "abc", "a b", "a.=1", "a@", "é"])
def test_a_condition_needs_an_operator_after_its_field(text: str) -> None:
    """Any other punctuation but `_` ends a field too, and is no operator."""
    with pytest.raises(ValueError, match="no operator"):
        parse_condition(text)


def encoded(text: str) -> str:
    """Write a rune with these restrictions, and a code that no node has made."""
    return base64.urlsafe_b64encode(bytes(32) + text.encode()).decode()


@pytest.mark.parametrize(
    "text", ["=7&a=1|", "=7&a=1\\", "=7&\\a=1", "=7&a", "=7|a=1", "a=1&=7", "!7", "=7&a=1\0"]
)
def test_what_lightningd_does_not_read_is_refused(text: str) -> None:
    """An alternative that is missing, an unfinished escape, an escape in a field, an id in the wrong place."""
    with pytest.raises(ValueError):  # noqa: PT011 - that it is refused is what matters
        Rune.parse(encoded(text))


def test_what_lightningd_reads_is_read() -> None:
    """A field of any letters and spaces, `&` at the end, base64 with or without its padding."""
    rune = Rune.parse(encoded("=7&é b=\\&c&"))
    assert rune.restrictions == ((Alternative("", "=", "7"),), (Alternative("é b", "=", "&c"),))
    padded = encoded("=7&abc=1")
    assert padded.endswith("==")
    assert Rune.parse(padded.rstrip("=")) == Rune.parse(padded)


@pytest.mark.parametrize("limit", ["9" * 19, "-" + "9" * 5000, "1_0", "٣", "", "1 ", "0x10", "--1"])
def test_a_limit_that_is_no_64_bit_number_permits_nothing(limit: str) -> None:
    """lightningd reads it with strtol, which knows decimal digits only."""
    assert Alternative("a", "<", limit).complaint(1) == f"{limit} is not a valid integer"


@pytest.mark.parametrize("limit", ["2", " +2", "0002", "9223372036854775807"])
def test_a_limit_is_read_as_strtol_reads_it(limit: str) -> None:
    """Spaces and a sign may come first."""
    assert Alternative("a", "<", limit).complaint(1) is None
    assert Alternative("a", ">", limit).complaint(1) == f"a is less or equal to {limit}"
