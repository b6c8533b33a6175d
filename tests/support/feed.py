"""A scripted inbox: what SubscribeCustomMsgs meets at a gateway whose connections are cut by plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import NODE, PEER, refuse, refuse_because

Code = grpc.StatusCode
INBOX = "inbox"
BIRTH = 1_700_000_000
"""When event 0 would have come, in seconds since 1970; event n comes n seconds later."""

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


def position(number: int, inbox: str = INBOX) -> str:
    """Return the position of event `number`; of 0, the position before all. Its text says nothing about the order."""
    return f"{inbox}-{sha256(f'{inbox} {number}'.encode()).hexdigest()[:12]}"


class Feed:
    """An inbox with its subscription; each connection follows the next plan, the last one to the end.

    Args:
        events: what is in the inbox, by number.
        plans: the steps of each connection; after the last one come all events there are.
        starts_at: the number of the newest event when a subscription starts with new events only.
    """

    def __init__(self, events: Sequence[pb.Event], *plans: Sequence[Step], starts_at: int = 0) -> None:
        self.events = list(events)
        self.consumers: dict[str, int] = {}
        self.acks: list[int] = []
        self.requests: list[pb.SubscribeCustomMsgsRequest] = []
        self.registered = asyncio.Event()
        self.gone = asyncio.Event()
        self._plans: Iterator[Sequence[Step]] = iter(plans)
        self._starts_at = starts_at

    async def __call__(self, request: Any, context: Any) -> AsyncIterator[pb.SubscribeCustomMsgsResponse]:
        """Serve one connection."""
        context.add_done_callback(lambda _: self.gone.set())
        self.requests.append(pb.SubscribeCustomMsgsRequest.FromString(request.SerializeToString()))
        at = self._start(request)
        plan = next(self._plans, None)
        steps: Sequence[Step] = [len(self.events)] if plan is None else plan
        if steps and steps[0] is not end and callable(steps[0]):
            await steps[0](request, context)  # refused before it is registered
        self.registered.set()
        yield pb.SubscribeCustomMsgsResponse(position=position(at))
        for step in steps:
            if callable(step):
                await step(request, context)
                return
            events = [event for event in self.events if number_of(event.position) > at][:step]
            if events:
                at = number_of(events[-1].position)
            passing = [event for event in events if _passes(request.filter, event)]
            yield pb.SubscribeCustomMsgsResponse(events=passing, position=position(at))
        await asyncio.Event().wait()

    def _start(self, request: Any) -> int:
        if request.HasField("after"):
            start = number_of(request.after)
        elif request.consumer in self.consumers:
            return self.consumers[request.consumer]
        else:
            start = 0 if request.from_beginning else self._starts_at
        if request.consumer:
            self.consumers.setdefault(request.consumer, start)
        return start

    async def ack(self, request: Any, context: Any) -> pb.AckCustomMsgsResponse:
        """Answer AckCustomMsgs."""
        number = number_of(request.position)
        self.acks.append(number)
        self.consumers[request.consumer] = max(number, self.consumers[request.consumer])
        return pb.AckCustomMsgsResponse(position=position(self.consumers[request.consumer]))


def number_of(text: str) -> int:
    """Return the number of the event at a position."""
    return _NUMBERS[text]


def message(number: int, type: int = 37913, payload: bytes = b"", peer_id: bytes = PEER) -> pb.Event:
    """Make the event of a message."""
    return _event(number, peer_id=peer_id, message=pb.TypedMsg(type=type, payload=payload))


def connected(number: int) -> pb.Event:
    """Make the event of a peer that connected."""
    return _event(number, peer_id=PEER, peer_connected=pb.PeerConnected())


def disconnected(number: int) -> pb.Event:
    """Make the event of a peer that disconnected."""
    return _event(number, peer_id=PEER, peer_disconnected=pb.PeerDisconnected())


def interruption(number: int, lost: int = 0, peer_id: bytes = b"") -> pb.Event:
    """Make an interruption."""
    return _event(number, peer_id=peer_id, interruption=pb.Interruption(lost=lost))


def _event(number: int, peer_id: bytes, **kind: Any) -> pb.Event:
    event = pb.Event(
        position=position(number), node_id=NODE, peer_id=peer_id, peer_id_hex=peer_id.hex(), **kind
    )
    event.time.FromSeconds(BIRTH + number)
    return event


def _passes(wanted: pb.EventFilter, event: pb.Event) -> bool:
    if event.HasField("message"):
        return not wanted.types or event.message.type in wanted.types
    if event.WhichOneof("kind") in ("peer_connected", "peer_disconnected"):
        return wanted.include_peer_events
    return True


_NUMBERS = {position(number): number for number in range(200)}
