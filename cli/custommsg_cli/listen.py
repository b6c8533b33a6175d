"""The command `listen`: one line for each event, until it is enough."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from cyclopts import CycloptsError, Parameter, Token
from cyclopts.validators import Number

from custommsg_cli import lines, show
from custommsg_cli.settings import Global, message_type


def _types(_: object, tokens: Sequence[Token]) -> list[int | range]:
    return [_type_or_range(token.value) for token in tokens]


def _type_or_range(text: str) -> int | range:
    first, dash, last = text.partition("-")
    if not dash:
        return message_type(text)
    types = range(message_type(first), message_type(last) + 1)
    if not types:
        raise ValueError(f"{text!r} is no range of types: it ends before it begins")
    return types


def listen(
    *,
    type: Annotated[list[int | range] | None, Parameter(converter=_types, negative="")] = None,
    peer: Annotated[list[str] | None, Parameter(negative="")] = None,
    after: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**64))] = None,
    from_beginning: Annotated[bool, Parameter(negative="")] = False,
    consumer: str | None = None,
    events: Annotated[bool, Parameter(negative="")] = False,
    count: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    settings: Global,
) -> None:
    """Print what peers send to the node, as it comes, until Ctrl-C.

    It connects again by itself and misses nothing. With --json, each line is one JSON object.

    Args:
        type: Only messages of this type, or range of types (40000-40009); may be given again.
        peer: Only what comes from this peer, 66 hex digits; may be given again.
        after: Start after this sequence number.
        from_beginning: Start with the oldest message that is kept.
        consumer: A name: what was printed is acknowledged, and the next time it goes on there.
        events: Print also when peers connect and disconnect, and where messages may be missing.
        count: Stop after so many lines.
        settings: What is the same for every command.
    """
    if after is not None and from_beginning:
        raise CycloptsError(msg="Start either --after a sequence number or --from-beginning.")
    printer = lines.JsonLines() if settings.json else lines.Columns()
    with _log_on_stderr(as_json=settings.json), settings.connect() as client:
        subscription = client.subscribe(
            types=type,
            peers=peer,
            after=after,
            from_beginning=from_beginning,
            consumer=consumer,
            peer_events=events,
            interruptions=events,
        )
        subscription.start()
        printer.begin()
        for printed, event in enumerate(subscription, 1):
            printer.print(event)
            if consumer is not None:
                subscription.ack(event)
            if printed == count:
                break


@contextmanager
def _log_on_stderr(*, as_json: bool) -> Iterator[None]:
    """Show what the client logs: that the connection was lost and is back, and where messages may be missing."""

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
