"""BOLT 8: the handshake and the transport, against the vectors of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyln.proto.primitives import PrivateKey

from custommsg_testing.devnode.noise import Decryptor, Encryptor, Initiator, Responder, TransportError

# Appendix A of BOLT 8.
INITIATOR, INITIATOR_EPHEMERAL = PrivateKey(b"\x11" * 32), PrivateKey(b"\x12" * 32)
RESPONDER, RESPONDER_EPHEMERAL = PrivateKey(b"\x21" * 32), PrivateKey(b"\x22" * 32)
ACT_ONE = bytes.fromhex(
    "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a"
)
ACT_TWO = bytes.fromhex(
    "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae"
)
ACT_THREE = bytes.fromhex(
    "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b"
    "1c466263b47fdf31e560e139ba"
)
KEY = bytes.fromhex("969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9")
CHAINING_KEY = bytes.fromhex("919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01")


def node_id(key: PrivateKey) -> bytes:
    return bytes(key.public_key().serializeCompressed())


def test_the_initiators_acts_are_those_of_the_specification() -> None:
    """Appendix A, transport-initiator successful handshake."""
    initiator = Initiator(INITIATOR, node_id(RESPONDER), INITIATOR_EPHEMERAL)
    assert initiator.act_one() == ACT_ONE
    assert initiator.act_three(ACT_TWO) == ACT_THREE


def test_the_responders_acts_are_those_of_the_specification() -> None:
    """Appendix A, transport-responder successful handshake."""
    responder = Responder(RESPONDER, RESPONDER_EPHEMERAL)
    assert responder.act_two(ACT_ONE) == ACT_TWO
    assert responder.finish(ACT_THREE) == node_id(INITIATOR)


@pytest.mark.parametrize(
    ("number", "sealed"),
    [
        (0, "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95"),
        (1, "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1"),
        (500, "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8"),
        (501, "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd"),
        (1000, "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09"),
        (1001, "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36"),
    ],
)
def test_messages_are_sealed_as_in_the_specification(number: int, sealed: str) -> None:
    """Appendix A, message encryption: it covers two changes of the key."""
    encryptor = Encryptor(KEY, CHAINING_KEY)
    for _ in range(number):
        encryptor.encrypt(b"hello")
    assert encryptor.encrypt(b"hello").hex() == sealed


@pytest.mark.parametrize("at", range(0, 50, 7))
def test_a_changed_first_act_is_refused(at: int) -> None:
    """Every byte of it counts; pyln-proto alone would let a bad MAC pass."""
    with pytest.raises(TransportError, match="act one of the handshake"):
        Responder(RESPONDER).act_two(flip(ACT_ONE, at))


@pytest.mark.parametrize("at", range(0, 50, 7))
def test_a_changed_second_act_is_refused(at: int) -> None:
    """The same in the other direction."""
    initiator = Initiator(INITIATOR, node_id(RESPONDER), INITIATOR_EPHEMERAL)
    initiator.act_one()
    with pytest.raises(TransportError, match="act two of the handshake"):
        initiator.act_three(flip(ACT_TWO, at))


@pytest.mark.parametrize("at", range(0, 66, 7))
def test_a_changed_third_act_is_refused(at: int) -> None:
    """The peer's own key is in it."""
    responder = Responder(RESPONDER, RESPONDER_EPHEMERAL)
    responder.act_two(ACT_ONE)
    with pytest.raises(TransportError, match="act three of the handshake"):
        responder.finish(flip(ACT_THREE, at))


def test_who_dials_with_another_key_in_mind_is_told_so_by_the_first_act() -> None:
    """A wrong key is a clear failure, not garbage later."""
    act_one = Initiator(INITIATOR, node_id(INITIATOR)).act_one()
    with pytest.raises(TransportError, match="wrong key"):
        Responder(RESPONDER).act_two(act_one)


def test_a_node_id_off_the_curve_is_refused() -> None:
    """There is nothing to dial."""
    with pytest.raises(TransportError, match="not a point"):
        Initiator(INITIATOR, b"\x02" + b"\xff" * 32)


def test_a_message_with_a_wrong_mac_is_refused() -> None:
    """Nothing can be inserted into the stream."""
    sealed = Encryptor(KEY, CHAINING_KEY).encrypt(b"hello")
    for at in (0, 17, 18, len(sealed) - 1):
        with pytest.raises(TransportError, match="MAC"):
            Decryptor(KEY, CHAINING_KEY).feed(flip(sealed, at))


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_the_stream_is_split(
    messages: list[bytes], data: st.DataObject
) -> None:
    """TCP keeps no boundaries."""
    encryptor, decryptor = Encryptor(KEY, CHAINING_KEY), Decryptor(KEY, CHAINING_KEY)
    stream = b"".join(encryptor.encrypt(message) for message in messages)
    out: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += decryptor.feed(stream[:size])
        stream = stream[size:]
    assert out == messages


def test_the_longest_message_passes() -> None:
    """65,535 bytes."""
    message = bytes(range(256)) * 255 + bytes(255)
    assert len(message) == 65_535
    sealed = Encryptor(KEY, CHAINING_KEY).encrypt(message)
    assert Decryptor(KEY, CHAINING_KEY).feed(sealed) == [message]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
