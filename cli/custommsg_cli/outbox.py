"""The sub-commands about the outbox: what waits for its peer, and what became of it."""

from __future__ import annotations

import time
import uuid
from itertools import islice
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from custommsg.events import OutboxEntryEnded
from custommsg.model import OutboxState
from custommsg.sync import Client
from custommsg_cli import lines, show
from custommsg_cli.content import Content, content_of, even_problem
from custommsg_cli.settings import Flag, Global, type_argument, usage_error

NOT_SENT: Final = 1
"""The exit status if a message that was waited for was not sent."""
_LOOK: Final = 0.2
"""Seconds between two looks at an entry."""

outbox = App(name="outbox", help="Show, watch and cancel messages that wait for their peers.")

StateName = Literal["waiting_for_peer", "sending", "sent", "expired", "cancelled", "failed", "unknown"]


def queue(
    peer: str,
    /,
    *,
    type: Annotated[int | None, Parameter(converter=type_argument)] = None,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    hex: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    msg: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    even: Flag = False,
    idempotency_key: str | None = None,
    ttl: float | None = None,
    at_least_once: Flag = False,
    settings: Global,
) -> None:
    """Put one message into the gateway's outbox: it is sent when the peer is connected.

    Args:
        peer: The peer's node id, 66 hex digits.
        type: The message's type, decimal or 0x hex.
        text: The payload as text; "-" reads it from the standard input, whatever bytes they are.
        hex: The payload in hex; "-" reads it from the standard input.
        msg: The whole message in hex, its type included, instead of --type; "-" reads it from the standard input.
        even: Send a message of an even type. A peer that does not know an even type disconnects.
        idempotency_key: The same command with the same key queues nothing a second time.
        ttl: Seconds after which it is no longer to be sent. Default: the gateway's.
        at_least_once: Send it again after an unknown outcome. Default: it is sent at most once.
        settings: The options of every command.
    """
    content = content_of(type, text, hex, msg)
    problem = None if even else even_problem(content)
    if problem is not None:
        raise usage_error(problem)
    with settings.connect() as client:
        enqueued = client.enqueue(peer, **content, key=idempotency_key, ttl=ttl, at_least_once=at_least_once)
    show.enqueued(enqueued, as_json=settings.json)


@outbox.default
@outbox.command(name="list")
def _list(
    *,
    state: Annotated[list[StateName] | None, Parameter(negative="")] = None,
    peer: Annotated[list[str] | None, Parameter(negative="")] = None,
    count: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    settings: Global,
) -> None:
    """List the entries of the outbox, those that were queued first at the beginning.

    Args:
        state: Only entries in this state; may be repeated.
        peer: Only entries for this peer, 66 hex digits; may be repeated.
        count: At most so many.
        settings: The options of every command.
    """
    states = [OutboxState[name.upper()] for name in state] if state else None
    with settings.connect() as client:
        entries = list(islice(client.outbox(states=states, peers=peer), count))
    show.entries(entries, as_json=settings.json)


@outbox.command
def watch(
    *, count: Annotated[int | None, Parameter(validator=Number(gte=1))] = None, settings: Global
) -> None:
    """Print each entry of the outbox that ends, as it ends, until Ctrl-C.

    Args:
        count: Stop after this many lines.
        settings: The options of every command.
    """
    printer = lines.JsonLines() if settings.json else lines.Columns()
    with settings.connect() as client:
        subscription = client.subscribe(outbox_events=True).start()
        printer.begin()
        for event in islice((one for one in subscription if isinstance(one, OutboxEntryEnded)), count):
            printer.print(event)


@outbox.command
def cancel(entry: str | None = None, /, *, idempotency_key: str | None = None, settings: Global) -> None:
    """Cancel an entry that waits.

    Args:
        entry: Its id, as `custommsg outbox` shows it.
        idempotency_key: Its key, instead of its id.
        settings: The options of every command.
    """
    if (entry is None) == (idempotency_key is None):
        raise usage_error("Give either the id of the entry, or --idempotency-key.")
    with settings.connect() as client:
        cancelled = client.cancel(entry, key=idempotency_key)
    show.entries([cancelled], as_json=settings.json)


def send_and_wait(client: Client, peer: str, content: Content, seconds: float, *, as_json: bool) -> int:
    """Send a message when its peer is connected, and wait for that; return the exit status.

    Args:
        client: the client.
        peer: the peer.
        content: the message.
        seconds: after how long it is no longer to be sent.
        as_json: print JSON.
    """
    enqueued = client.enqueue(peer, **content, key=str(uuid.uuid4()), ttl=seconds)
    while not (entry := client.outbox_entry(enqueued.entry_id)).state.is_final:
        time.sleep(_LOOK)
    show.entries([entry], as_json=as_json)
    return 0 if entry.state is OutboxState.SENT else NOT_SENT
