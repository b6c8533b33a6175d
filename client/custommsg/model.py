"""What the calls return: plain values, without protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from custommsg.errors import CustomMsgError


@dataclass(frozen=True, slots=True)
class Sent:
    """The node has queued the message for the peer. Of its delivery the Lightning protocol gives no word."""

    status: str
    """What lightningd said, for people."""
    type: int
    """The type of the message."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to send, and the peer to send it to: what `send` takes, as a value."""

    peer: bytes | str
    """Its node id: 33 bytes, or 66 hex digits."""
    type: int | None = None
    """The message's type, 0 to 65,535; together with `payload`, instead of `msg`."""
    payload: bytes | None = None
    """What follows the type, up to 65,533 bytes."""
    msg: bytes | str | None = None
    """The whole message with its type, 2 to 65,535 bytes, or the same in hex."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one message of many."""

    index: int
    """Which one: counts from 0, in the order of the input."""
    message: Outbound
    """The message itself."""
    outcome: Sent | CustomMsgError
    """`Sent`, or what `send` would have raised."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The message passed every check, the node's own included, and was not sent."""

    status: str
    """What was checked, for people."""
    type: int
    """The type of the message."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer of the node."""

    node_id: bytes
    """33 bytes."""
    connected: bool
    """Whether the node is connected to it now; messages can be sent only then."""
    address: str
    """Where it is connected from or to, e.g. "127.0.0.1:9735"; empty if not connected."""
    num_channels: int
    """How many channels the node has with it."""

    @property
    def node_id_hex(self) -> str:
        """The node id as 66 hex digits."""
        return self.node_id.hex()


@dataclass(frozen=True, slots=True)
class Node:
    """A Lightning node, as it describes itself."""

    node_id: bytes
    """33 bytes."""
    alias: str
    """Chosen by its owner: any text."""
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
    """The gateway, its node, and the link between the two."""

    gateway_version: str
    """The gateway's own version."""
    node_link_up: bool
    """Whether the node answers now. Sending fails with NODE_UNAVAILABLE while it does not."""
    node: Node | None
    """The node as it last described itself; None if it never answered since the gateway started."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A subscriber's name, and how far the gateway knows it has come."""

    name: str
    """The name that its subscription gave."""
    position: int
    """The sequence number up to which it has dealt with everything."""
    lag: int
    """How many events have been stored since."""
    updated: datetime
    """When it last acknowledged something; with its time zone, UTC."""
    expired: bool
    """Whether events after its position are no longer kept: its next subscription raises PositionExpired."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """What the gateway keeps of what peers have sent."""

    inbox_id: str
    """A random name, made with the inbox: positions of another one mean nothing here."""
    earliest: int
    """The sequence number of the oldest event that is kept; `latest + 1` if none is."""
    latest: int
    """The sequence number of the newest event; 0 if there never was one."""
    count: int
    """How many events are kept."""
    size: int
    """Bytes that they take on the disk."""
    oldest: datetime | None
    """When the oldest of them arrived; with its time zone, UTC. None if none is kept."""
    attached: bool
    """Whether lightningd hands messages over now."""
    error: str
    """What is wrong with the inbox now, for people; empty if nothing is."""
