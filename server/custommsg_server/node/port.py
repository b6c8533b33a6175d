"""Everything that the core needs from a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import Message, NodeId


class Outbound(NamedTuple):
    """A message on its way to a peer."""

    peer_id: NodeId
    message: Message


class NetAddress(NamedTuple):
    """The address of a node."""

    kind: str
    """"ipv4", "ipv6", "torv3", "dns" or "local socket"."""
    host: str
    """For a local socket its path."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer, as the node knows it now."""

    peer_id: bytes
    connected: bool
    address: str
    num_channels: int
    features: bytes = b""
    """As in BOLT 9."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A peer, and where to find it."""

    peer_id: NodeId
    host: str = ""
    """Empty: the node finds an address itself."""
    port: int = 0
    """0: the network's usual port."""

    @property
    def params(self) -> dict[str, str | int]:
        """The parameters of lightningd's command `connect`."""
        params: dict[str, str | int] = {"id": self.peer_id.hex()}
        if self.host:
            params["host"] = self.host
        if self.port:
            params["port"] = self.port
        return params

    def __str__(self) -> str:
        return f"{self.peer_id.hex()}@{NetAddress('', self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that the node has to a peer."""

    features: bytes
    """As in BOLT 9."""
    is_incoming: bool
    """Whether the peer connected to the node."""
    address: NetAddress


@dataclass(frozen=True, slots=True)
class Announcement:
    """Any node of the network, as it announces itself in gossip."""

    node_id: bytes
    time: int = 0
    """When, in seconds since 1970; 0: it never did, and only its channels are known."""
    alias: str = ""
    color: str = ""
    """Three bytes as hex digits."""
    features: bytes = b""
    """As in BOLT 9."""
    addresses: Sequence[NetAddress] = ()


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The node's description of itself."""

    node_id: bytes
    alias: str
    network: str
    version: str
    color: str = ""
    """Three bytes as hex digits; empty if not known."""
    block_height: int = 0
    is_synced: bool = False
    """Whether it has caught up with the chain."""
    active_channels: int = 0
    inactive_channels: int = 0
    pending_channels: int = 0
    peers: int = 0
    """How many are connected or have a channel."""
    addresses: Sequence[NetAddress] = ()
    """Those that it announces."""
    features: Mapping[str, bytes] = field(default_factory=dict)
    """As in BOLT 9, by where it says them: "init", "node", "channel", "invoice"."""


class Node(Protocol):
    """A Lightning node. Deadlines are in seconds of the running event loop's clock.

    `caller` is an opaque name. Requests of several callers are sent in turns, those of one caller in order.
    """

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher` with `is_up`, now and whenever it changes."""

    @property
    def is_up(self) -> bool:
        """Whether the node answers now."""

    @property
    def info(self) -> NodeInfo | None:
        """The node as it last described itself, or None if it never did."""

    def has_room(self, caller: str) -> bool:
        """Whether the node can take more requests of a caller now."""

    async def room(self, caller: str) -> None:
        """Wait until the node can take more requests of a caller."""

    async def send(
        self, batch: Sequence[Outbound], deadline: float, caller: str, held_back: bool = False
    ) -> list[str | RelayError]:
        """Queue messages with the node, in order; return each status or error, never raise.

        `held_back` says that the caller has waited for `room`.
        """

    async def check(self, outbound: Outbound, deadline: float, caller: str) -> None:
        """Run the node's checks on a message and send nothing. Raises RelayError."""

    async def list_peers(self, deadline: float, caller: str) -> list[Peer]:
        """List the peers that the node knows now. Raises RelayError."""

    async def describe(self, deadline: float, caller: str) -> NodeInfo:
        """Ask the node to describe itself now. Raises RelayError."""

    async def check_rune(
        self, rune: str, uses: Sequence[Use], deadline: float, caller: str
    ) -> list[RelayError | None]:
        """Return for each use why the rune does not permit it, or None. Each permitted use counts as used."""

    async def connect(self, address: PeerAddress, deadline: float) -> Connected:
        """Have the node connect to a peer; nothing happens if it is connected already. Raises RelayError."""

    async def disconnect(self, peer_id: NodeId, force: bool, deadline: float, caller: str) -> None:
        """Have the node disconnect from a peer; from one with a channel only by force. Raises RelayError."""

    async def find(self, node_id: NodeId, deadline: float, caller: str) -> Announcement | None:
        """Look for a node in gossip; None: it is not known. Raises RelayError."""
