"""The client of the custommsg gateway: Lightning custom messages over gRPC.

`custommsg.aio` and `custommsg.sync` hold the two clients, with the same names in both:

    async with custommsg.aio.connect("127.0.0.1:9737") as client:
        await client.send(peer, type=37913, payload=b"hello")
        async for message in client.subscribe(types=[37913]):
            print(message.node_id_hex, message.payload)

The stubs made from the proto are in `custommsg.v1`, for those who want nothing on top of them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from custommsg.errors import (
    ConsumerUnknown,
    CustomMsgError,
    FieldViolation,
    InvalidRequest,
    NodeError,
    NotPermitted,
    NotSent,
    OutcomeUnknown,
    PeerNotConnected,
    PeerUnknown,
    PositionExpired,
    Reason,
)
from custommsg.events import Event, Interruption, Message, PeerConnected, PeerDisconnected
from custommsg.model import Checked, Consumer, Inbox, Info, Node, Outbound, Peer, Result, Sent

if TYPE_CHECKING:
    from custommsg import aio, sync

__all__ = [
    "Checked",
    "Consumer",
    "ConsumerUnknown",
    "CustomMsgError",
    "Event",
    "FieldViolation",
    "Inbox",
    "Info",
    "Interruption",
    "InvalidRequest",
    "Message",
    "Node",
    "NodeError",
    "NotPermitted",
    "NotSent",
    "Outbound",
    "OutcomeUnknown",
    "Peer",
    "PeerConnected",
    "PeerDisconnected",
    "PeerNotConnected",
    "PeerUnknown",
    "PositionExpired",
    "Reason",
    "Result",
    "Sent",
    "aio",
    "sync",
]


def __getattr__(name: str) -> ModuleType:
    # On first use, because they import grpc: who wants only the stubs does not pay for the clients, and the
    # command can still tell grpc to keep its log off the terminal, which works only before the import.
    if name in ("aio", "sync"):
        return import_module(f"custommsg.{name}")
    raise AttributeError(f"module 'custommsg' has no attribute {name!r}")
