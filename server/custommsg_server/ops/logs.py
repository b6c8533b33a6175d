"""Logs: structured, to stderr, as JSON or for a console.

Most log lines go through structlog. The line of each call goes through `info`, which writes the same format at a
fraction of the cost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "json", "console"]

_root = logging.getLogger()
_log = structlog.get_logger()
_handler: logging.StreamHandler[TextIO] | None = None
"""The handler, if the format is JSON."""
_lines: list[str] = []
"""Lines of `info` that are not yet written."""
_WRITE_AFTER = 0.02
"""Seconds until lines are written: a write for each line would take longer than making it."""


def configure(level: str, form: LogFormat) -> None:
    """Set up logging for the process.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "auto" is "console" on a terminal and "json" elsewhere.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    if not console:
        # Never log the local variables of a frame: they may contain runes and payloads.
        tracer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        shared.append(structlog.processors.ExceptionRenderer(tracer))
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    global _handler
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    _handler = None if console else handler


def set_level(level: str) -> None:
    """Change the lowest level that is logged."""
    _root.setLevel(level.upper())


def says_info() -> bool:
    """Return whether `info` would write something."""
    return _root.isEnabledFor(logging.INFO)


def info(event: str, fields: str) -> None:
    """Log a frequent event; call it on the event loop.

    Args:
        event: the event, without characters that JSON escapes.
        fields: its fields, as JSON without the outer braces: '"code": "OK", "size": 3'.
    """
    if _handler is None:
        _log.info(event, **json.loads(f"{{{fields}}}"))
        return
    if not _lines:
        asyncio.get_running_loop().call_later(_WRITE_AFTER, flush)
    second, micros = divmod(time.time_ns() // 1000, 1_000_000)
    _lines.append(
        f'{{{fields}, "event": "{event}", "level": "info", "timestamp": "{_date(second)}.{micros:06d}Z"}}'
    )


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def flush() -> None:
    """Write the lines that `info` has collected; call it before the event loop ends."""
    if not _lines:
        return
    text = "\n".join([*_lines, ""])
    _lines.clear()
    if _handler is not None:
        with _handler.lock or nullcontext():
            _handler.stream.write(text)
            _handler.stream.flush()
