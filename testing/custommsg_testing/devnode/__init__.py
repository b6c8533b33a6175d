"""The embedded node: a small real Lightning node, for trying out and for tests.

It speaks BOLT 8 and BOLT 1 to any Lightning peer, and lightningd's JSON-RPC on a unix socket. It holds no channels and
no money, and takes no part in gossip and onion messages.

Its memory is bounded where lightningd's is not: at most 64 MiB wait for a peer that does not read, at most 64 MiB of
received messages are kept, and while a plugin does not read, no more is read from the peers. Unlike lightningd, which
reads 1 MB/s from a peer, it does not throttle its peers.
"""

from __future__ import annotations

from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.identity import DirectoryError
from custommsg_testing.devnode.node import DevNode, OnMessage, Settings
from custommsg_testing.devnode.outbox import OutboxFullError
from custommsg_testing.devnode.peer import PeerError
from custommsg_testing.devnode.received import MessagesLostError, Received
from custommsg_testing.devnode.running import WouldHaveDiedError, run, serve

__all__ = [
    "Address",
    "DevNode",
    "DirectoryError",
    "MessagesLostError",
    "OnMessage",
    "OutboxFullError",
    "PeerError",
    "Received",
    "Settings",
    "WouldHaveDiedError",
    "run",
    "serve",
]
