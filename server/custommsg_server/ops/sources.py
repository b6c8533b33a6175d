"""What the metrics read from. It is apart from those who use it, so that they need not import each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from custommsg_server.api.open_streams import OpenStreams
from custommsg_server.core.delivery import Delivery
from custommsg_server.core.intake import Intake
from custommsg_server.core.memory import MemoryBudget
from custommsg_server.inbox.port import Inbox
from custommsg_server.node.port import Node
from custommsg_server.outbox.port import Outbox


@dataclass(frozen=True, slots=True)
class Sources:
    """What the metrics read from at each scrape."""

    node: Node
    inbox: Inbox
    data_path: Path
    """The folder of the inbox."""
    intake: Intake
    attached: Callable[[], bool]
    """Returns whether lightningd is attached."""
    memory: MemoryBudget
    open_streams: OpenStreams
    outbox: Outbox
    delivery: Delivery
