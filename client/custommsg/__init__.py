"""The client of the custommsg gateway: Lightning custom messages over gRPC.

`custommsg.aio` (for asyncio) and `custommsg.sync` (blocking) have the same methods:

    async with custommsg.aio.connect("127.0.0.1:9737") as client:
        await client.send(peer, type=37913, payload=b"hello")
        async for message in client.subscribe(types=[37913]):
            print(message.peer_id_hex, message.payload)

`custommsg.v1` has the stubs generated from the proto, for use without these clients.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from custommsg.errors import (
    ConsumerUnknown,
    CustomMsgError,
    EntryNotWaiting,
    EntryUnknown,
    FieldViolation,
    IdempotencyKeyReused,
    InvalidRequest,
    NodeError,
    NodeUnknown,
    NotPermitted,
    NotSent,
    OutcomeUnknown,
    PeerNotConnected,
    PeerUnknown,
    PositionError,
    PositionExpired,
    PositionNotReached,
    PositionOfOtherInbox,
    Reason,
)
from custommsg.events import (
    Event,
    Interruption,
    Message,
    OutboxEntryEnded,
    PeerConnected,
    PeerDisconnected,
)
from custommsg.model import (
    DEFAULT_ADDRESS,
    MAX_MESSAGE_SIZE,
    MAX_TYPE,
    MIN_MESSAGE_SIZE,
    Checked,
    Consumer,
    Enqueued,
    Inbox,
    Info,
    Node,
    Outbound,
    OutboxEntry,
    OutboxState,
    Peer,
    Result,
    Sent,
)

if TYPE_CHECKING:
    from custommsg import aio, sync

__all__ = [
    "DEFAULT_ADDRESS",
    "MAX_MESSAGE_SIZE",
    "MAX_TYPE",
    "MIN_MESSAGE_SIZE",
    "Checked",
    "Consumer",
    "ConsumerUnknown",
    "CustomMsgError",
    "Enqueued",
    "EntryNotWaiting",
    "EntryUnknown",
    "Event",
    "FieldViolation",
    "IdempotencyKeyReused",
    "Inbox",
    "Info",
    "Interruption",
    "InvalidRequest",
    "Message",
    "Node",
    "NodeError",
    "NodeUnknown",
    "NotPermitted",
    "NotSent",
    "Outbound",
    "OutboxEntry",
    "OutboxEntryEnded",
    "OutboxState",
    "OutcomeUnknown",
    "Peer",
    "PeerConnected",
    "PeerDisconnected",
    "PeerNotConnected",
    "PeerUnknown",
    "PositionError",
    "PositionExpired",
    "PositionNotReached",
    "PositionOfOtherInbox",
    "Reason",
    "Result",
    "Sent",
    "aio",
    "sync",
]


def __getattr__(name: str) -> ModuleType:
    # On first use, because both import grpc, which is slow to import. And grpc reads GRPC_VERBOSITY when it is
    # imported: a program can still set it after `import custommsg`.
    if name in ("aio", "sync"):
        return import_module(f"custommsg.{name}")
    raise AttributeError(f"module 'custommsg' has no attribute {name!r}")
