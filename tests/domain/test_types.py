"""Sets of message types."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.types import TypeSet, parse_range, parse_set
from custommsg_server.domain.wire import MAX_TYPE

ranges = st.lists(
    st.builds(
        lambda first, size: range(first, min(first + size, MAX_TYPE + 1)),
        st.integers(0, MAX_TYPE),
        st.integers(0, 99),
    )
)


@given(ranges, st.integers(0, MAX_TYPE + 9))
def test_a_set_holds_what_its_ranges_hold(given_: list[range], number: int) -> None:
    """Its ranges do not overlap or touch."""
    types = TypeSet(given_)
    expected = {one for each in given_ for one in each}
    assert [one for each in types.ranges for one in each] == sorted(expected)
    assert len(types) == len(expected)
    assert (number in types) is (number in expected)
    assert all(one in types for one in expected)
    assert all(before.stop < after.start for before, after in pairwise(types.ranges))


@given(ranges, ranges)
def test_a_difference_holds_what_only_the_first_set_holds(first: list[range], second: list[range]) -> None:
    """The result is in order."""
    left = TypeSet(first) - TypeSet(second)
    assert list(left) == sorted(set(TypeSet(first)) - set(TypeSet(second)))


def test_many_ranges_can_be_taken_out() -> None:
    """The number of pieces grows with the number of ranges, and no faster."""
    odd = TypeSet([range(number, number + 1) for number in range(1, 2000, 2)])
    assert list(TypeSet([range(2000)]) - odd) == list(range(0, 2000, 2))


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """A parsed range is within the message types."""
    try:
        read = parse_range(text)
    except ValueError as error:
        assert "write 37913, 0x9419 or 32768-65535" in str(error)
    else:
        assert 0 <= read[0] <= read[-1] <= MAX_TYPE


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "65536", "5-4", "0x", "1-2-3", "one"])
def test_an_invalid_range_is_refused(text: str) -> None:
    """The error says how to write it."""
    with pytest.raises(ValueError, match="not a message type"):
        parse_set([text])
