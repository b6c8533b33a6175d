"""The sub-commands that print events: `listen` as they come, `events` those that the inbox has stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from custommsg.events import Event, Interruption
from custommsg_cli import lines, show
from custommsg_cli.settings import Flag, Global, types_argument, usage_error

_MAX_PAGE: Final = 1000
"""Events; the gateway returns no more in one page."""

Types = Annotated[list[int | range] | None, Parameter(converter=types_argument, negative="")]
Peers = Annotated[list[str] | None, Parameter(negative="")]


def listen(
    *,
    type: Types = None,
    peer: Peers = None,
    after: str | None = None,
    from_beginning: Flag = False,
    consumer: str | None = None,
    events: Flag = False,
    count: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    settings: Global,
) -> None:
    """Print what peers send to the node, as it comes, until Ctrl-C.

    It connects again by itself and misses nothing. To resume later, give the POSITION of the last line to --after, or
    use --consumer from the start. If the gateway itself may have missed messages since the line before, a note on
    stderr says so. With --json, each line is one JSON object.

    Args:
        type: Only messages of this type, or range of types (40000-40009); may be repeated.
        peer: Only events of this peer, 66 hex digits; may be repeated.
        after: Start after this position.
        from_beginning: Start with the oldest event that is kept.
        consumer: A name for this listener. The gateway stores what was printed under it, and the next listener of this
            name resumes there.
        events: Print also when peers connect and disconnect, and every place where messages may be missing.
        count: Stop after this many lines.
        settings: The options of every command.
    """
    if after is not None and from_beginning:
        raise usage_error("Give either --after or --from-beginning.")
    printer = lines.JsonLines() if settings.json else lines.Columns()
    notes = _Interruptions(resumes=after is not None or (consumer is not None and not from_beginning))
    with _log_on_stderr(as_json=settings.json), settings.connect() as client:
        subscription = client.subscribe(
            types=type,
            peers=peer,
            after=after,
            from_beginning=from_beginning,
            consumer=consumer,
            peer_events=events,
            interruptions=True,
        )
        subscription.start()
        printer.begin()
        printed = 0
        for event in subscription:
            if events or not isinstance(event, Interruption):
                printer.print(event)
                notes.printed()
                printed += 1
            elif notes.wanted:
                show.notice(str(event), as_json=settings.json)
            if consumer is not None:
                subscription.ack(event)
            if printed == count:
                break


class _Interruptions:
    """Which interruptions to report on stderr, if they are not printed as events.

    A gateway stores one each time it attaches to its node, the first time, too. So the first one in an inbox says
    nothing to a listener that starts there: no listener knows any message from before it. It is reported to a listener
    that goes on from somewhere, or that has printed something: between that and the interruption, messages may be
    missing.

    Args:
        resumes: whether the listener goes on after an earlier one.
    """

    def __init__(self, *, resumes: bool) -> None:
        self.wanted = resumes
        """Whether to report the next one."""

    def printed(self) -> None:
        """Note that an event was printed."""
        self.wanted = True


def events(
    *,
    type: Types = None,
    peer: Peers = None,
    after: str | None = None,
    messages: Flag = False,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    settings: Global,
) -> None:
    """List the events that the inbox has stored, oldest first, without waiting for new ones.

    With --json, each line is one JSON object.

    Args:
        type: Only messages of this type, or range of types (40000-40009); may be repeated.
        peer: Only events of this peer, 66 hex digits; may be repeated.
        after: Start after this position; default: with the oldest event that is kept.
        messages: Leave out when peers connect and disconnect. Places where messages may be missing stay.
        limit: Print at most this many events.
        settings: The options of every command.
    """
    printer = lines.JsonLines() if settings.json else lines.Columns()
    last: Event | None = None
    with settings.connect() as client:
        listed = client.list_events(
            types=type,
            peers=peer,
            after=after,
            peer_events=not messages,
            interruptions=True,
            page_size=min(limit + 1, _MAX_PAGE),
        )
        for event in islice(listed, limit):
            if last is None:
                printer.begin()
            printer.print(event)
            last = event
        if last is None and not settings.json:
            show.line("The inbox has no such events.")
        if last is not None and next(listed, None) is not None:
            show.notice(f"There are more events. To go on: --after {last.position}", as_json=settings.json)


@contextmanager
def _log_on_stderr(*, as_json: bool) -> Iterator[None]:
    """Print what the client logs: that the connection was lost, and that it is back."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show.notice(record.getMessage(), as_json=as_json)

    logger, handler, level = logging.getLogger("custommsg"), Handler(), logging.getLogger("custommsg").level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
