"""The embedded node: a small real Lightning node, for trying out and for tests.

It speaks BOLT 8 and BOLT 1 to any Lightning peer, and lightningd's JSON-RPC on a unix socket. It holds no
channels and no money.

It keeps within bounds where lightningd grows: 64 MiB may wait for a peer that does not read, 64 MiB of
received messages are kept, and peers wait for a plugin that does not read. It does not throttle its peers, as
lightningd does at 1 MB/s, and it takes no part in gossip, channels and onion messages.
"""

from __future__ import annotations

from custommsg_testing.devnode.address import Address
from custommsg_testing.devnode.identity import DirectoryError
from custommsg_testing.devnode.node import DevNode, Settings
from custommsg_testing.devnode.outbox import OutboxFullError
from custommsg_testing.devnode.peer import PeerError
from custommsg_testing.devnode.received import MessagesLostError, Received
from custommsg_testing.devnode.running import WouldHaveDiedError, run, serve

__all__ = [
    "Address",
    "DevNode",
    "DirectoryError",
    "MessagesLostError",
    "OutboxFullError",
    "PeerError",
    "Received",
    "Settings",
    "WouldHaveDiedError",
    "run",
    "serve",
]
