"""Runes in the place of macaroons: in a real macaroon, or as their text."""

from __future__ import annotations

import hmac
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from custommsg_server.__main__ import make_macaroon
from custommsg_server.access import macaroon
from custommsg_server.access.credentials import (
    GREENLIGHT_KEY,
    MACAROON_KEY,
    MAX_SIZE,
    rune_from_hex,
    rune_of_dialect,
)
from custommsg_server.access.macaroon import Macaroon
from custommsg_server.domain.errors import Reason, RelayError, UserError

RUNE = "zVqGWdlTMnPLjGrTjcjeXkTV6DPvMcSHzuSFe5SkfRk9MCZtZXRob2Q9c2VuZGN1c3RvbW1zZw=="
PEER = "ipv4:127.0.0.1:50000"
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC).timestamp()
RUNES = st.from_regex(r"\A[A-Za-z0-9_-]{1,400}={0,2}\Z")


def with_caveats(made: bytes, *caveats: bytes) -> bytes:
    """Add caveats, as a holder does: each is signed with the signature before it."""
    body, signature = made[:-35], made[-32:]
    for caveat in caveats:
        assert len(caveat) < 0x80
        body += bytes((2, len(caveat))) + caveat + b"\0"
        signature = hmac.digest(signature, caveat, "sha256")
    return body + b"\0\x06\x20" + signature


def refusal(raw: bytes, peer: str = PEER) -> tuple[Reason, str]:
    """Return why a macaroon is refused."""
    with pytest.raises(RelayError) as caught:
        macaroon.rune_in(raw, peer, NOW)
    return caught.value.reason, caught.value.message


# Written by gopkg.in/macaroon.v2, the package of LND: NewMacaroon(rune, rune, "custommsg"), then
# AddFirstPartyCaveat, as lncli does before each call.
OF_GO = bytes.fromhex(
    "020109637573746f6d6d7367024c7a56714757646c544d6e504c6a4772546a636a65586b5456364450764d6353487a755346"
    "6535536b66526b394d435a745a58526f62325139633256755a474e31633352766257317a5a773d3d00022a74696d652d6265"
    "666f726520323032362d31312d32355431323a30313a30302e3132333435363738395a000210697061646472203132372e30"
    "2e302e3100000620b5fb83b3165afd76dd642c70e656104195a1b39656b084396d2251d9888dc22c"
)


@given(RUNES)
@example("A" * 127)
@example("A" * 128)
def test_a_rune_comes_back_from_its_macaroon(rune: str) -> None:
    """In digits of either case, and from the rune's own text, too."""
    made = macaroon.make(rune)
    assert rune_from_hex(made.hex(), PEER) == rune
    assert rune_from_hex(made.hex().upper(), PEER) == rune
    assert rune_from_hex(rune.encode().hex(), PEER) == rune


@given(RUNES, st.lists(st.binary(min_size=1, max_size=100), max_size=macaroon.MAX_CAVEATS))
def test_what_holders_add_is_read(rune: str, caveats: list[bytes]) -> None:
    """Each caveat, in order; the signature is right."""
    parsed = Macaroon.parse(with_caveats(macaroon.make(rune), *caveats))
    assert (parsed.identifier, parsed.caveats) == (rune.encode(), tuple(caveats))
    assert parsed.is_authentic


@given(st.binary(max_size=200), st.data())
def test_no_bytes_raise_anything_but_the_documented_error(raw: bytes, data: st.DataObject) -> None:
    """Random bytes, and a macaroon with one part replaced by them."""
    made = with_caveats(macaroon.make(RUNE), b"time-before 2027-01-01T00:00:00Z")
    start = data.draw(st.integers(0, len(made)))
    for text in (raw, b"\x02" + raw, made[:start] + raw, made[:start] + raw + made[start:]):
        try:
            macaroon.rune_in(text, PEER, NOW)
        except RelayError as error:
            assert error.reason in (Reason.NO_CREDENTIAL, Reason.NOT_PERMITTED)
        else:
            assert text == made


@given(st.text() | st.binary().map(bytes.hex))
def test_any_metadata_is_a_rune_or_refused(text: str) -> None:
    """No text raises anything else."""
    with suppress(RelayError):
        assert rune_from_hex(text, PEER)


def test_a_macaroon_of_lnds_own_package_is_read() -> None:
    """Byte for byte as the Go package writes it."""
    parsed = Macaroon.parse(OF_GO)
    assert parsed.is_authentic
    assert with_caveats(macaroon.make(RUNE), *parsed.caveats) == OF_GO
    assert parsed.caveats == (b"time-before 2026-11-25T12:01:00.123456789Z", b"ipaddr 127.0.0.1")
    assert macaroon.rune_in(OF_GO, PEER, NOW) == RUNE


def test_a_caveat_cannot_be_removed_or_changed() -> None:
    """Without the root key, which the gateway derives from the rune, the signature does not fit any more."""
    late = with_caveats(macaroon.make(RUNE), b"time-before 2026-11-25T11:00:00Z")
    removed = macaroon.make(RUNE)[:-32] + late[-32:]
    changed = late.replace(b"2026", b"2036")
    for raw in (removed, changed):
        reason, message = refusal(raw)
        assert reason is Reason.NO_CREDENTIAL
        assert "a caveat was removed or changed" in message


@pytest.mark.parametrize(
    ("caveat", "peer"),
    [
        ("time-before 2026-11-25T12:00:00.000001999Z", PEER),
        ("time-before 2026-11-25T13:00:01+01:00", PEER),
        ("ipaddr 127.0.0.1", PEER),
        ("ipaddr ::ffff:127.0.0.1", PEER),
        ("ipaddr 127.0.0.1", "ipv6:%5B::ffff:127.0.0.1%5D:1"),
        ("ipaddr ::1", "ipv6:%5B::1%5D:50000"),
        ("ipaddr ::1", "ipv6:[::1]:50000"),
        ("iprange 127.0.0.0/8", PEER),
        ("iprange 10.0.0.0/0", PEER),
        ("iprange 2001:db8::/32", "ipv6:%5B2001:db8::7%5D:1"),
    ],
)
def test_a_satisfied_caveat_changes_nothing(caveat: str, peer: str) -> None:
    """In LND's spelling."""
    assert macaroon.rune_in(with_caveats(macaroon.make(RUNE), caveat.encode()), peer, NOW) == RUNE


@pytest.mark.parametrize(
    ("caveat", "peer", "why"),
    [
        ("time-before 2026-11-25T12:00:00Z", PEER, "it has expired (time-before)"),
        ("time-before 2026-11-25T12:00:00+01:00", PEER, "it has expired (time-before)"),
        ("time-before 2026-11-25", PEER, "time-before has no time as in RFC 3339"),
        ("time-before 2026-13-25T12:00:00Z", PEER, "time-before has no time as in RFC 3339"),
        ("time-before 2027-11-25T12:00:00", PEER, "time-before has no time as in RFC 3339"),
        ("time-before", PEER, "time-before has no time as in RFC 3339"),
        ("ipaddr 127.0.0.2", PEER, "it is for another IP address (ipaddr)"),
        ("ipaddr ::1", PEER, "it is for another IP address (ipaddr)"),
        ("ipaddr localhost", PEER, "ipaddr has no IP address"),
        ("ipaddr 127.0.0.1", "unix:", "this connection has no IP address"),
        ("iprange 10.0.0.0/8", PEER, "it is for another IP address (iprange)"),
        ("iprange 127.0.0.0/255.0.0.0", PEER, "iprange has no IP address"),
        ("lnd-custom account 1", PEER, "a caveat lnd-custom that the gateway does not know"),
        ("Time-before 2027-11-25T12:00:00Z", PEER, "a caveat that the gateway does not know"),
        (" time-before 2027-11-25T12:00:00Z", PEER, "a caveat that the gateway does not know"),
    ],
)
def test_a_caveat_that_is_not_satisfied_or_not_known_refuses(caveat: str, peer: str, why: str) -> None:
    """The text says which, and what the gateway knows."""
    reason, message = refusal(with_caveats(macaroon.make(RUNE), caveat.encode()), peer)
    assert reason is Reason.NOT_PERMITTED
    assert why in message


def test_every_caveat_has_to_be_satisfied() -> None:
    """A satisfied one after it changes nothing."""
    late, early = b"time-before 2026-11-25T11:00:00Z", b"time-before 2027-11-25T11:00:00Z"
    for caveats in ((late, early), (early, late)):
        assert refusal(with_caveats(macaroon.make(RUNE), *caveats))[0] is Reason.NOT_PERMITTED


def test_caveats_of_third_parties_and_too_many_caveats_are_refused() -> None:
    """The gateway could not check the former; the latter would take its time."""
    made = macaroon.make(RUNE)
    third = made[:-35] + b"\x01\x01x\x02\x01y\x04\x01z\0" + made[-35:]
    many = with_caveats(made, *[b"ipaddr 127.0.0.1"] * (macaroon.MAX_CAVEATS + 1))
    for raw in (third, many):
        assert refusal(raw)[0] is Reason.NO_CREDENTIAL


@pytest.mark.parametrize(
    "text",
    [
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
def test_other_metadata_is_no_credential(text: str) -> None:
    """A macaroon that LND has made means nothing here, and the caller learns that."""
    with pytest.raises(RelayError) as caught:
        rune_from_hex(text, PEER)
    assert caught.value.reason is Reason.NO_CREDENTIAL


def test_the_rune_is_found_among_the_metadata() -> None:
    """Under the keys that LND's clients use, and Greenlight's."""
    metadata: list[tuple[str, str | bytes]] = [
        ("user-agent", "x"),
        (MACAROON_KEY, macaroon.make(RUNE).hex()),
        ("a-bin", b"\x00"),
    ]
    assert rune_of_dialect(metadata, PEER) == RUNE
    assert rune_of_dialect(metadata[:1], PEER) is None
    assert rune_of_dialect([(MACAROON_KEY, "")], PEER) is None
    assert rune_of_dialect([(GREENLIGHT_KEY, RUNE)], PEER) == RUNE
    assert rune_of_dialect([(GREENLIGHT_KEY, "no rune")], PEER) is None


def test_the_repr_shows_no_rune() -> None:
    """It is a credential."""
    assert repr(Macaroon.parse(OF_GO)) == "Macaroon(2 caveats)"


def test_a_command_makes_a_macaroon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints hex digits, and writes the binary to a new file that only its owner can read."""
    made = macaroon.make(RUNE)
    file = tmp_path / "gateway.macaroon"
    assert make_macaroon(RUNE, file=file) == 0
    assert capsys.readouterr().out == made.hex() + "\n"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (made, 0o600)
    monkeypatch.setattr("sys.stdin", StringIO(RUNE + "\n"))
    assert make_macaroon("-") == 0
    assert capsys.readouterr().out == made.hex() + "\n"
    for rune, path, why in (
        (RUNE, file, "exists already"),
        (RUNE, tmp_path / "missing" / "file", "Cannot write"),
        (RUNE[:-2], None, "This is not a rune"),
        ("no rune", None, "This is not a rune"),
    ):
        with pytest.raises(UserError, match=why):
            make_macaroon(rune, file=path)
