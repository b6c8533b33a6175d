"""A rune instead of a macaroon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.access.credentials import (
    GREENLIGHT_KEY,
    MACAROON_KEY,
    MAX_SIZE,
    rune_from_hex,
    rune_of_dialect,
)

RUNE = "zVqGWdlTMnPLjGrTjcjeXkTV6DPvMcSHzuSFe5SkfRk9MCZtZXRob2Q9c2VuZGN1c3RvbW1zZw=="


@given(st.from_regex(r"\A[A-Za-z0-9_-]{1,400}={0,2}\Z"))
def test_a_rune_comes_back_from_its_hex(rune: str) -> None:
    """In upper-case and lower-case digits."""
    assert rune_from_hex(rune.encode().hex()) == rune
    assert rune_from_hex(rune.encode().hex().upper()) == rune


@given(st.text() | st.binary().map(bytes.hex))
def test_any_macaroon_is_a_rune_or_none(text: str) -> None:
    """Never an exception, and never a malformed rune."""
    rune = rune_from_hex(text)
    assert rune is None or rune.encode().hex() == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "zz",
        "61 62",
        "0x6162",
        bytes.fromhex("0201036c6e64").hex(),  # how a macaroon of LND begins
        b"two words".hex(),
        "\u0661\u0661",
        "61" * (MAX_SIZE + 1),
    ],
)
def test_what_is_no_rune_is_no_credential(text: str) -> None:
    """A real macaroon of LND is not accepted."""
    assert rune_from_hex(text) is None


def test_the_rune_is_found_among_the_metadata() -> None:
    """Under the keys that LND's clients use, and Greenlight's."""
    metadata: list[tuple[str, str | bytes]] = [
        ("user-agent", "x"),
        (MACAROON_KEY, RUNE.encode().hex()),
        ("a-bin", b"\x00"),
    ]
    assert rune_of_dialect(metadata) == RUNE
    assert rune_of_dialect(metadata[:1]) is None
    assert rune_of_dialect([(MACAROON_KEY, b"\x00")]) is None
    assert rune_of_dialect([(GREENLIGHT_KEY, RUNE)]) == RUNE
    assert rune_of_dialect([(GREENLIGHT_KEY, "no rune")]) is None
