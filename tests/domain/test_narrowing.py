"""A rune that was narrowed here is the one that the node would have made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.domain.narrowing import encode, narrowed
from custommsg_server.domain.rune import Alternative, Restriction, Rune
from custommsg_testing.devnode.rune import derive, is_derived_from

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=90)
restrictions = st.lists(
    st.lists(
        st.builds(Alternative, st.sampled_from(["method", "pnamemsg", "time"]), st.just("="), TEXT),
        min_size=1,
    ).map(tuple),
    max_size=4,
)


@given(st.binary(min_size=16, max_size=32), st.integers(0, 10**6), restrictions, restrictions)
def test_narrowing_is_what_the_node_does(
    secret: bytes, number: int, has: list[Restriction], added: list[Restriction]
) -> None:
    """Whatever is in the restrictions, and however long they are; the node accepts the result."""
    first = (Alternative("", "=", str(number)),)
    text = encode(derive(secret, [first, *has]))
    for restriction in added:
        text = narrowed(text, restriction)
    assert text == encode(derive(secret, [first, *has, *added]))
    assert is_derived_from(Rune.parse(text), secret)
