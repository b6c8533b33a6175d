"""BOLT 8: the handshake in three acts, and the encrypted transport after it.

Pure functions over bytes: whoever reads and writes the socket is elsewhere. The cryptography is that of
pyln-proto, but for one thing: it lets a bad MAC in act one or two pass, so that a wrong key would show only
later and as garbage. Here it is checked where it comes in.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pyln.proto.primitives import PrivateKey, PublicKey
from pyln.proto.wire import LightningConnection, Sha256Mixer, decryptWithAD, ecdh, hkdf_two_keys

ACT_ONE_SIZE: Final = 50
ACT_TWO_SIZE: Final = 50
ACT_THREE_SIZE: Final = 66

_MAC_SIZE: Final = 16
_HEADER_SIZE: Final = 2 + _MAC_SIZE
_ROTATION: Final = 1000
"""A key is used this often, twice for each message, and then replaced (BOLT 8)."""


class TransportError(Exception):
    """What came in is not what the peer's key would have made: the connection is of no use any more."""


class Initiator:
    """The side that dials, and knows whom.

    Args:
        key: our own.
        remote_id: the node id of the peer, 33 bytes.
        ephemeral: the key of this handshake; a random one unless a test gives it.

    Raises:
        TransportError: `remote_id` is no node id.
    """

    def __init__(self, key: PrivateKey, remote_id: bytes, ephemeral: PrivateKey | None = None) -> None:
        try:
            remote = PublicKey(remote_id)
        except ValueError:
            raise TransportError("the peer's node id is no point on the curve") from None
        self._state = _start(key, remote, ephemeral, initiator=True)

    def act_one(self) -> bytes:
        """Make the 50 bytes that open the handshake."""
        return bytes(self._state.handshake_act_one_initiator())

    def act_three(self, act_two: bytes) -> bytes:
        """Read the responder's 50 bytes, and make the 66 bytes that close the handshake.

        Raises:
            TransportError: the peer is not the owner of its node id, or speaks something else.
        """
        before = self._state.handshake["h"]
        try:
            self._state.handshake_act_two_initiator(act_two)
            _check_mac(self._state.temp_k2, before, act_two)
        except (InvalidTag, ValueError) as error:
            _fail("two", error)
        return bytes(self._state.handshake_act_three_initiator())

    def ciphers(self) -> tuple[Encryptor, Decryptor]:
        """Give the transport that follows act three."""
        return _ciphers(self._state)


class Responder:
    """The side that was dialled, and learns by whom.

    Args:
        key: our own.
        ephemeral: the key of this handshake; a random one unless a test gives it.
    """

    def __init__(self, key: PrivateKey, ephemeral: PrivateKey | None = None) -> None:
        self._state = _start(key, None, ephemeral, initiator=False)

    def act_two(self, act_one: bytes) -> bytes:
        """Read the initiator's 50 bytes, and make the 50 bytes that answer.

        Raises:
            TransportError: the peer dialled another node id than ours, or speaks something else.
        """
        before, chaining_key = self._state.handshake["h"], self._state.chaining_key
        try:
            self._state.handshake_act_one_responder(act_one)
            shared = ecdh(self._state.local_privkey, self._state.handshake["re"])
            _, temp_k1 = hkdf_two_keys(ikm=shared.data, salt=chaining_key)
            _check_mac(temp_k1, before, act_one)
        except (InvalidTag, ValueError) as error:
            _fail("one", error)
        return bytes(self._state.handshake_act_two_responder())

    def finish(self, act_three: bytes) -> bytes:
        """Read the initiator's 66 bytes.

        Returns:
            The node id of the peer, 33 bytes.

        Raises:
            TransportError: the peer does not own the key that it names.
        """
        try:
            self._state.handshake_act_three_responder(act_three)
        except (InvalidTag, ValueError) as error:
            _fail("three", error)
        return bytes(self._state.remote_pubkey.serializeCompressed())

    def ciphers(self) -> tuple[Encryptor, Decryptor]:
        """Give the transport that follows act three."""
        return _ciphers(self._state)


class _Key:
    """A key, the count of its uses, and how the next key comes from it."""

    __slots__ = ("_chaining_key", "_key", "_used", "aead")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._replace(key, chaining_key)

    def nonce(self) -> bytes:
        """Give the nonce of this use, and turn to a new key when this one is worn."""
        if self._used == _ROTATION:
            chaining_key, key = hkdf_two_keys(salt=self._chaining_key, ikm=self._key)
            self._replace(key, chaining_key)
        self._used += 1
        return struct.pack("<IQ", 0, self._used - 1)

    def _replace(self, key: bytes, chaining_key: bytes) -> None:
        self._chaining_key, self._key, self._used = chaining_key, key, 0
        self.aead = ChaCha20Poly1305(key)


class Encryptor:
    """Turns messages into what goes over the wire.

    Args:
        key: 32 bytes.
        chaining_key: 32 bytes, from which later keys come.
    """

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = _Key(key, chaining_key)

    def encrypt(self, message: bytes) -> bytes:
        """Encrypt one message of at most 65,535 bytes."""
        key = self._key
        # The nonce comes first: taking it may change the key.
        nonce = key.nonce()
        header = key.aead.encrypt(nonce, len(message).to_bytes(2, "big"), b"")
        nonce = key.nonce()
        return header + key.aead.encrypt(nonce, message, b"")


class Decryptor:
    """Turns what came over the wire into messages, however it was split.

    It holds at most one message and what it was fed last.

    Args:
        key: 32 bytes.
        chaining_key: 32 bytes, from which later keys come.
    """

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = _Key(key, chaining_key)
        self._buffer = bytearray()
        self._body_size = -1  # not known before the header is here

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what was read, and give the messages that are complete now, in order.

        Raises:
            TransportError: a MAC is wrong.
        """
        self._buffer += data
        messages: list[bytes] = []
        view, start = bytes(self._buffer), 0
        while True:
            size = _HEADER_SIZE if self._body_size < 0 else self._body_size
            if len(view) - start < size:
                del self._buffer[:start]
                return messages
            plain = self._decrypt(view[start : start + size])
            start += size
            if self._body_size < 0:
                self._body_size = int.from_bytes(plain, "big") + _MAC_SIZE
            else:
                messages.append(plain)
                self._body_size = -1

    def _decrypt(self, sealed: bytes) -> bytes:
        nonce = self._key.nonce()
        try:
            return self._key.aead.decrypt(nonce, sealed, b"")
        except InvalidTag:
            raise TransportError("a message has a wrong MAC") from None


def _start(
    key: PrivateKey, remote: PublicKey | None, ephemeral: PrivateKey | None, *, initiator: bool
) -> LightningConnection:
    state = LightningConnection(None, remote, key, initiator)
    if ephemeral is not None:
        state.handshake["e"] = ephemeral
    return state


def _ciphers(state: LightningConnection) -> tuple[Encryptor, Decryptor]:
    return Encryptor(state.sk, state.chaining_key), Decryptor(state.rk, state.chaining_key)


def _check_mac(key: bytes, hash_before: bytes, act: bytes) -> None:
    mixed = Sha256Mixer(b"")
    mixed.hash = hash_before
    mixed.update(act[1:34])
    decryptWithAD(key, LightningConnection.nonce(0), mixed.digest(), act[34:])


def _fail(act: str, error: Exception) -> NoReturn:
    why = "its MAC is wrong (wrong key?)" if isinstance(error, InvalidTag) else str(error)
    raise TransportError(f"act {act} of the handshake: {why}") from None
