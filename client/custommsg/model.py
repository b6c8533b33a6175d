"""What the calls take and return, as plain values without protobuf; and the limits of a message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from custommsg.errors import CustomMsgError

DEFAULT_ADDRESS: Final = "127.0.0.1:9737"
"""Where a gateway listens by default."""
MAX_TYPE: Final = 65_535
"""The largest message type."""
MIN_MESSAGE_SIZE: Final = 2
"""Bytes: a message without a payload has its type alone."""
MAX_MESSAGE_SIZE: Final = 65_535
"""Bytes, the type included."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The node has queued the message for the peer. The Lightning protocol does not acknowledge delivery."""

    status: str
    """What lightningd said, for people."""
    type: int
    """The type of the message."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The message passed every check, the node's own included, and was not sent."""

    status: str
    """What was checked, for people."""
    type: int
    """The type of the message."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to send, and the peer to send it to: the arguments of `send` as a value."""

    peer: bytes | str
    """The peer's node id: 33 bytes, or 66 hex digits."""
    type: int | None = None
    """The message's type, 0 to 65,535; together with `payload`, instead of `msg`."""
    payload: bytes | None = None
    """What follows the type, up to 65,533 bytes."""
    msg: bytes | str | None = None
    """The whole message with its type: 2 to 65,535 bytes, or the same in hex."""
    node_id: bytes | str | None = None
    """Our node to send from; None for the gateway's only node."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many messages."""

    index: int
    """Which one: it counts from 0, in the order of the input."""
    message: Outbound
    """The message itself."""
    outcome: Sent | CustomMsgError
    """`Sent`, or what `send` would have raised."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer of the node."""

    peer_id: bytes
    """Its node id, 33 bytes."""
    connected: bool
    """Whether the node is connected to it now. Messages can be sent only then."""
    address: str
    """Where it is connected from or to, e.g. "127.0.0.1:9735"; empty if it is not connected."""
    num_channels: int
    """How many channels the node has with it."""

    @property
    def peer_id_hex(self) -> str:
        """Its node id as 66 hex digits."""
        return self.peer_id.hex()


@dataclass(frozen=True, slots=True)
class Node:
    """Our Lightning node, as it describes itself."""

    node_id: bytes
    """33 bytes."""
    alias: str
    """Chosen by its owner; any text."""
    network: str
    """"bitcoin", "testnet", "signet", "regtest", ..."""
    version: str
    """The version of Core Lightning, e.g. "v26.06.6"."""

    @property
    def node_id_hex(self) -> str:
        """The node id as 66 hex digits."""
        return self.node_id.hex()


@dataclass(frozen=True, slots=True)
class Info:
    """The gateway, its node, and the link between them."""

    gateway_version: str
    """The gateway's own version."""
    node_link_up: bool
    """Whether the node answers now. Sending fails with NODE_UNAVAILABLE while it does not."""
    node: Node | None
    """The node as it last described itself; None if it has not answered since the gateway started."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A named consumer, and how far it has come."""

    name: str
    """Its name."""
    position: str
    """Everything up to this position is acknowledged."""
    lag: int
    """About how many events have been stored since."""
    updated: datetime
    """When it last acknowledged something; with its time zone, UTC."""
    expired: bool
    """Whether events after its position were deleted: its next subscription raises PositionExpired."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """What the inbox holds."""

    earliest: str
    """The position before the oldest event that is kept: everything comes after it."""
    latest: str
    """The position of the newest event."""
    count: int
    """About how many events are kept."""
    size: int
    """Bytes that they take."""
    oldest: datetime | None
    """When the oldest of them arrived; with its time zone, UTC. None if none is kept."""
    attached: bool
    """Whether lightningd hands messages over now."""
    error: str
    """What is wrong with the inbox now, for people; empty if nothing is."""
