"""The rules for node ids and messages that may be written to lightningd.

lightningd crashes on some messages that it accepts: an empty one, one of 65,536 bytes, invalid hex. So every message is
checked here before it is written. Only the functions of this module make values of the types `NodeId` and `Message`.
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import Final, NewType

import coincurve

from custommsg_server.domain.errors import Reason, RelayError

NodeId = NewType("NodeId", bytes)
"""A compressed point on secp256k1, 33 bytes (BOLT 1, BOLT 8)."""

Message = NewType("Message", bytes)
"""A 2-byte big-endian type and its payload, 2 to 65,535 bytes (BOLT 1). lightningd does not handle the type itself."""

NODE_ID_SIZE: Final = 33
MIN_MESSAGE_SIZE: Final = 2
MAX_MESSAGE_SIZE: Final = 65_535
MAX_TYPE: Final = 65_535

_NAMES: Final = """
    0 PROTOCOL_BATCH_ELEMENT, 1 WARNING, 2 STFU, 16 INIT, 17 ERROR, 18 PING, 19 PONG,
    32 OPEN_CHANNEL, 33 ACCEPT_CHANNEL, 34 FUNDING_CREATED, 35 FUNDING_SIGNED, 36 CHANNEL_READY,
    38 SHUTDOWN, 39 CLOSING_SIGNED, 40 CLOSING_COMPLETE, 41 CLOSING_SIG,
    64 OPEN_CHANNEL2, 65 ACCEPT_CHANNEL2, 66 TX_ADD_INPUT, 67 TX_ADD_OUTPUT, 68 TX_REMOVE_INPUT,
    69 TX_REMOVE_OUTPUT, 70 TX_COMPLETE, 71 TX_SIGNATURES, 72 TX_INIT_RBF, 73 TX_ACK_RBF, 74 TX_ABORT,
    77 SPLICE_LOCKED, 80 SPLICE, 81 SPLICE_ACK, 127 START_BATCH,
    128 UPDATE_ADD_HTLC, 130 UPDATE_FULFILL_HTLC, 131 UPDATE_FAIL_HTLC, 132 COMMITMENT_SIGNED,
    133 REVOKE_AND_ACK, 134 UPDATE_FEE, 135 UPDATE_FAIL_MALFORMED_HTLC, 136 CHANNEL_REESTABLISH,
    137 UPDATE_BLOCKHEIGHT, 256 CHANNEL_ANNOUNCEMENT, 257 NODE_ANNOUNCEMENT, 258 CHANNEL_UPDATE,
    259 ANNOUNCEMENT_SIGNATURES, 261 QUERY_SHORT_CHANNEL_IDS, 262 REPLY_SHORT_CHANNEL_IDS_END,
    263 QUERY_CHANNEL_RANGE, 264 REPLY_CHANNEL_RANGE, 265 GOSSIP_TIMESTAMP_FILTER, 513 ONION_MESSAGE
"""
INTERNAL_TYPES: Final[dict[int, str]] = {
    int(number): f"WIRE_{name}" for number, name in (entry.split() for entry in _NAMES.split(","))
}
"""The types that Core Lightning v26.06 handles itself, with its names for them (wire/peer_wire.csv).

The set grows with its releases; the node makes the final check.
"""


def parse_node_id(raw: bytes, field: str = "peer_id") -> NodeId:
    """Check that a field is a node id, as lightningd does. Raises RelayError: INVALID_NODE_ID."""
    # The length comes first: an uncompressed point of 65 bytes would pass the point check.
    if len(raw) != NODE_ID_SIZE:
        raise _bad_node_id(f"it has {len(raw)} bytes, not {NODE_ID_SIZE}", field)
    if not _is_point(raw):
        raise _bad_node_id("it is not a compressed point on secp256k1", field)
    return NodeId(raw)


def parse_node_id_hex(text: str, field: str = "peer_id_hex") -> NodeId:
    """Parse a node id from hex digits of either case. Raises RelayError: INVALID_NODE_ID."""
    try:
        raw = unhex(text)
    except ValueError as error:
        raise _bad_node_id(str(error), field) from None
    return parse_node_id(raw, field)


def parse_message(raw: bytes, field: str = "msg") -> Message:
    """Check that a field is a message that may be sent. Raises RelayError: INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE."""
    if not MIN_MESSAGE_SIZE <= len(raw) <= MAX_MESSAGE_SIZE:
        raise _bad_message(
            f"it has {len(raw)} bytes, its 2-byte type included;"
            f" {MIN_MESSAGE_SIZE} to {MAX_MESSAGE_SIZE:,} are allowed",
            field,
        )
    number = message_type(raw)
    if number in INTERNAL_TYPES:
        raise internal_type(number, INTERNAL_TYPES[number], field)
    return Message(raw)


def parse_message_hex(text: str, field: str = "msg_hex") -> Message:
    """Parse a message from hex digits of either case. Raises RelayError: INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE."""
    try:
        raw = unhex(text)
    except ValueError as error:
        raise _bad_message(str(error), field) from None
    return parse_message(raw, field)


def join_message(number: int, payload: bytes, field: str = "typed_msg") -> Message:
    """Make a message from its type and its payload. Raises RelayError: INVALID_MESSAGE or INTERNAL_MESSAGE_TYPE."""
    if not 0 <= number <= MAX_TYPE:
        raise _bad_message(f"its type is {number}; a type is a number from 0 to {MAX_TYPE:,}", field)
    return parse_message(number.to_bytes(2, "big") + payload, field)


def message_type(message: bytes) -> int:
    """Read the type of a message of at least 2 bytes."""
    return message[0] << 8 | message[1]


def unhex(text: str) -> bytes:
    """Turn an even number of hex digits into bytes.

    Stricter than `bytes.fromhex`, which skips spaces.

    Raises:
        ValueError: the text is invalid. The error does not quote it.
    """
    if len(text) % 2:
        raise ValueError(f"it has {len(text)} hex digits, an odd number")
    try:
        return binascii.unhexlify(text)
    except ValueError:  # binascii.Error, or a character beyond ASCII
        raise ValueError("it has characters that are not hex digits") from None


def internal_type(number: int, name: str, field: str = "msg") -> RelayError:
    """Make the error for a type that the node handles itself, as found by the gateway or by the node."""
    return RelayError(
        Reason.INTERNAL_MESSAGE_TYPE,
        f"Messages of type {number} ({name}) are handled by the node itself and cannot be sent."
        " Choose a type that BOLT 1 leaves free: 32768 or above.",
        field=field,
        metadata={"type": str(number), "name": name},
    )


def _bad_message(what: str, field: str) -> RelayError:
    return RelayError(Reason.INVALID_MESSAGE, f"The message is invalid: {what}.", field=field)


def _bad_node_id(what: str, field: str) -> RelayError:
    return RelayError(
        Reason.INVALID_NODE_ID,
        f"The node id is invalid: {what}. Copy it from ListPeers or `lightning-cli listpeers`.",
        field=field,
    )


@lru_cache(maxsize=8192)
def _is_point(raw: bytes) -> bool:
    # coincurve takes 4 us a point, and callers send to the same peers repeatedly.
    try:
        coincurve.PublicKey(raw)
    except ValueError:
        return False
    return True
