"""Everything that the core needs from a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import Message, NodeId


class Outbound(NamedTuple):
    """A message on its way to a peer."""

    peer_id: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer, as the node knows it now."""

    peer_id: bytes
    connected: bool
    address: str
    num_channels: int


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A peer, and where to find it."""

    peer_id: NodeId
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.peer_id.hex()}@{host}:{self.port}"


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

    async def connect(self, address: PeerAddress, deadline: float) -> None:
        """Have the node connect to a peer; nothing happens if it is connected already. Raises RelayError."""
