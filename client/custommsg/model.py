"""What the calls take and return, as plain values without protobuf; and the limits of a message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
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


@unique
class OutboxState(Enum):
    """The state of an entry of the outbox."""

    WAITING_FOR_PEER = "WAITING_FOR_PEER"
    """It will be sent when the peer is connected."""
    SENDING = "SENDING"
    """It is being written to the node."""
    SENT = "SENT"
    """The node has queued it for the peer. Final."""
    EXPIRED = "EXPIRED"
    """It was not sent in time. Final."""
    CANCELLED = "CANCELLED"
    """A caller has cancelled it. Final."""
    FAILED = "FAILED"
    """It cannot be sent, and was not. Final."""
    UNKNOWN = "UNKNOWN"
    """It may or may not have been sent, and is not sent again. Final."""

    @property
    def is_final(self) -> bool:
        """Whether it never changes again."""
        return self not in (OutboxState.WAITING_FOR_PEER, OutboxState.SENDING)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A message is in the outbox."""

    entry_id: str
    """The id of its entry. Opaque: do not parse, compare or compute it."""
    state: OutboxState
    """WAITING_FOR_PEER, or any state if `existed`."""
    existed: bool
    """An earlier call has enqueued it, with the same idempotency key."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An entry of the outbox. Times have their time zone, UTC."""

    id: str
    """Opaque: do not parse, compare or compute it."""
    node_id: bytes
    """Our node, 33 bytes; empty if the gateway does not know it yet."""
    peer_id: bytes
    """The peer, 33 bytes."""
    type: int
    """The type of the message."""
    payload: bytes
    """What follows the type."""
    idempotency_key: str
    """The key that its caller gave it; empty: none."""
    state: OutboxState
    reason: str
    """Why it is FAILED or UNKNOWN, a name of `Reason`; else empty."""
    at_least_once: bool
    """After an unknown outcome it is sent again."""
    direct: bool
    """It was sent by `send` with an idempotency key, and never waited."""
    attempts: int
    """How often it was written to the node, or was about to be."""
    caller: str
    """Who enqueued it, e.g. "rune:7"; empty without access control."""
    created: datetime
    updated: datetime
    """When it came into its state."""
    expires: datetime | None
    """None for what was sent directly."""

    @property
    def peer_id_hex(self) -> str:
        """The peer's node id as 66 hex digits."""
        return self.peer_id.hex()


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
