"""A scripted inbox: what SubscribeCustomMsgs meets at a gateway whose connections are cut by plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import PEER, refuse, refuse_because

Code = grpc.StatusCode
INBOX_ID = "inbox-1"
BIRTH = 1_700_000_000
"""When the events of `message` and its like begin, in seconds since 1970: event n comes n seconds later."""

Cut: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
Step: TypeAlias = int | Cut
"""One step of a connection: the next n events in one response (0: a heartbeat), or its end."""


async def end(request: Any, context: Any) -> None:
    """End the stream without an error, as no gateway means to."""


async def vanish(request: Any, context: Any) -> None:
    """Break the connection as a proxy does: an error without a word of the gateway."""
    await context.abort(Code.UNAVAILABLE, "Socket closed")


stopping: Cut = refuse_because(Code.UNAVAILABLE, "GATEWAY_STOPPING", retry_after=0.001)
overloaded: Cut = refuse_because(Code.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.001)
crash: Cut = refuse(Code.UNKNOWN, "Unexpected <class 'ZeroDivisionError'>")
CUTS: Sequence[Cut] = (end, vanish, stopping, overloaded, crash)


class Feed:
    """An inbox with its subscription; each connection follows the next plan, the last one to the end.

    Args:
        events: what is in the inbox, by sequence.
        plans: the steps of each connection; after the last one come all events there are.
        starts_at: the position at which "live" starts.
    """

    def __init__(
        self, events: Sequence[pb.Event], *plans: Sequence[Step], starts_at: int = 0, inbox_id: str = INBOX_ID
    ) -> None:
        self.events = list(events)
        self.acked: dict[str, int] = {}
        self.requests: list[pb.SubscribeCustomMsgsRequest] = []
        self.registered = asyncio.Event()
        self.gone = asyncio.Event()
        self._plans: Iterator[Sequence[Step]] = iter(plans)
        self._starts_at = starts_at
        self._inbox_id = inbox_id

    async def __call__(self, request: Any, context: Any) -> AsyncIterator[pb.SubscribeCustomMsgsResponse]:
        """Serve one connection."""
        context.add_done_callback(lambda _: self.gone.set())
        self.requests.append(pb.SubscribeCustomMsgsRequest.FromString(request.SerializeToString()))
        position = self._start(request)
        metadata = (("custommsg-inbox-id", self._inbox_id), ("custommsg-position", str(position)))
        plan = next(self._plans, None)
        steps: Sequence[Step] = [len(self.events)] if plan is None else plan
        if steps and steps[0] is not end and callable(steps[0]):
            await steps[0](request, context)  # refused before it is registered
        self.registered.set()
        await context.send_initial_metadata(metadata)
        for step in steps:
            if callable(step):
                await step(request, context)
                return
            events = [event for event in self.events if event.sequence > position][:step]
            if events:
                position = events[-1].sequence
            passing = [event for event in events if _passes(request, event)]
            yield pb.SubscribeCustomMsgsResponse(events=passing, position=position)
        await asyncio.Event().wait()

    def _start(self, request: Any) -> int:
        if request.consumer in self.acked:
            return self.acked[request.consumer]
        if request.HasField("after"):
            return int(request.after)
        return 0 if request.from_beginning else self._starts_at

    async def ack(self, request: Any, context: Any) -> pb.AckCustomMsgsResponse:
        """Answer AckCustomMsgs."""
        position = max(request.sequence, self.acked.get(request.consumer, 0))
        self.acked[request.consumer] = position
        return pb.AckCustomMsgsResponse(position=position)


def message(sequence: int, type: int = 37913, payload: bytes = b"", node_id: bytes = PEER) -> pb.Event:
    """Make a message's event."""
    return _event(sequence, node_id=node_id, message=pb.TypedMsg(type=type, payload=payload))


def connected(sequence: int) -> pb.Event:
    """Make the event of a peer that connected."""
    return _event(sequence, node_id=PEER, peer_connected=pb.PeerConnected())


def disconnected(sequence: int) -> pb.Event:
    """Make the event of a peer that is gone."""
    return _event(sequence, node_id=PEER, peer_disconnected=pb.PeerDisconnected())


def interruption(sequence: int, lost: int = 0) -> pb.Event:
    """Make an interruption."""
    return _event(sequence, interruption=pb.Interruption(lost=lost))


def _event(sequence: int, node_id: bytes = b"", **kind: Any) -> pb.Event:
    event = pb.Event(sequence=sequence, node_id=node_id, node_id_hex=node_id.hex(), **kind)
    event.time.FromSeconds(BIRTH + sequence)
    return event


def _passes(request: Any, event: pb.Event) -> bool:
    if event.HasField("message"):
        return not request.types or event.message.type in request.types
    return event.HasField("interruption") or request.include_peer_events
