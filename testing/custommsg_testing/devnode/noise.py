"""BOLT 8: the handshake in three acts, and the encrypted transport after it. No input or output happens here.

The cryptography is that of pyln-proto, with one addition: pyln-proto does not report a wrong MAC in act one or two, so
that a wrong key would only be noticed later, as garbage. Here these MACs are checked, too.
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
"""A key is replaced after so many uses. Each message uses it twice (BOLT 8)."""


class TransportError(Exception):
    """What came in was not encrypted with the peer's key. The connection cannot be used any more."""


class Initiator:
    """The side that connects, and knows the other's node id.

    Args:
        key: our own.
        remote_id: the node id of the peer, 33 bytes.
        ephemeral: the key of this handshake. Random, except in tests.

    Raises:
        TransportError: `remote_id` is not a node id.
    """

    def __init__(self, key: PrivateKey, remote_id: bytes, ephemeral: PrivateKey | None = None) -> None:
        try:
            remote = PublicKey(remote_id)
        except ValueError:
            raise TransportError("the peer's node id is not a point on secp256k1") from None
        self._state = _start(key, remote, ephemeral, initiator=True)

    def act_one(self) -> bytes:
        """Return the 50 bytes that begin the handshake."""
        return bytes(self._state.handshake_act_one_initiator())

    def act_three(self, act_two: bytes) -> bytes:
        """Read the responder's 50 bytes, and return the 66 bytes that end the handshake.

        Raises:
            TransportError: the peer does not own its node id, or does not speak BOLT 8.
        """
        before = self._state.handshake["h"]
        try:
            self._state.handshake_act_two_initiator(act_two)
            _check_mac(self._state.temp_k2, before, act_two)
        except (InvalidTag, ValueError) as error:
            _fail("two", error)
        return bytes(self._state.handshake_act_three_initiator())

    def ciphers(self) -> tuple[Encryptor, Decryptor]:
        """Return the transport that follows act three."""
        return _ciphers(self._state)


class Responder:
    """The side that is connected to, and learns the other's node id.

    Args:
        key: our own.
        ephemeral: the key of this handshake. Random, except in tests.
    """

    def __init__(self, key: PrivateKey, ephemeral: PrivateKey | None = None) -> None:
        self._state = _start(key, None, ephemeral, initiator=False)

    def act_two(self, act_one: bytes) -> bytes:
        """Read the initiator's 50 bytes, and return the 50 bytes that answer them.

        Raises:
            TransportError: the peer wants another node id than ours, or does not speak BOLT 8.
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
            TransportError: the peer does not own its node id.
        """
        try:
            self._state.handshake_act_three_responder(act_three)
        except (InvalidTag, ValueError) as error:
            _fail("three", error)
        return bytes(self._state.remote_pubkey.serializeCompressed())

    def ciphers(self) -> tuple[Encryptor, Decryptor]:
        """Return the transport that follows act three."""
        return _ciphers(self._state)


class _Key:
    """A key, how often it was used, and how the next key is made from it."""

    __slots__ = ("_chaining_key", "_key", "_used", "aead")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._replace(key, chaining_key)

    def nonce(self) -> bytes:
        """Return the nonce of the next use, after a change to a new key if it is time."""
        if self._used == _ROTATION:
            chaining_key, key = hkdf_two_keys(salt=self._chaining_key, ikm=self._key)
            self._replace(key, chaining_key)
        self._used += 1
        return struct.pack("<IQ", 0, self._used - 1)

    def _replace(self, key: bytes, chaining_key: bytes) -> None:
        self._chaining_key, self._key, self._used = chaining_key, key, 0
        self.aead = ChaCha20Poly1305(key)


class Encryptor:
    """Encrypts the messages of one direction.

    Args:
        key: 32 bytes.
        chaining_key: 32 bytes, which later keys are made from.
    """

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = _Key(key, chaining_key)

    def encrypt(self, message: bytes) -> bytes:
        """Encrypt one message of at most 65,535 bytes."""
        key = self._key
        # The nonce first: nonce() may change the key.
        nonce = key.nonce()
        header = key.aead.encrypt(nonce, len(message).to_bytes(2, "big"), b"")
        nonce = key.nonce()
        return header + key.aead.encrypt(nonce, message, b"")


class Decryptor:
    """Decrypts the messages of one direction, however the network has split them.

    It keeps at most one message, and what it was given last.

    Args:
        key: 32 bytes.
        chaining_key: 32 bytes, which later keys are made from.
    """

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = _Key(key, chaining_key)
        self._buffer = bytearray()
        self._body_size = -1  # unknown until the header is complete

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what was read, and return the messages that are complete now, in order.

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
