"""`send --batch`: one message a line, as JSON; each line that fails is reported with its number."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from custommsg.errors import CustomMsgError
from custommsg.model import Outbound, Sent
from custommsg_cli import show
from custommsg_cli.settings import Settings, even_type, message_type

MAX_LINE: Final = 1 << 20
"""Bytes: far more than the largest message takes in hex. Without a limit, one long line could fill the memory."""

BAD_LINE: Final = "BAD_LINE"
"""The reason of a line that is not a message."""

EVEN_TYPE: Final = "EVEN_TYPE"
"""The reason of a line that is sent only with --even."""

MIXED: Final = 64
"""The exit status if lines failed with several gRPC codes; if all have the same code, it is this plus the code."""

_FIELDS: Final = {"peer", "type", "payload", "text", "msg"}


def send(path: str, settings: Settings, *, even: bool) -> int:
    """Send the messages of a file, and return the exit status.

    Args:
        path: the file; "-" for the standard input.
        settings: the options of every command.
        even: send messages of even types, too.

    Raises:
        OSError: the file cannot be read.
    """
    with (
        _opened(path) as file,
        _Progress(file, quiet=settings.json) as progress,
        settings.connect() as client,
    ):
        batch = _Batch(settings, progress.print, even=even)
        for result in client.send_many(batch.messages(file)):
            batch.take(result.index, result.outcome)
            progress.show(batch.sent, batch.failed)
    show.batch(batch.sent, batch.failures, as_json=settings.json)
    return batch.status


def parse(line: bytes) -> Outbound:
    """Read a line: {"peer": hex, "type": number, "payload": hex} or "text" for "payload"; or "peer" and "msg".

    Raises:
        ValueError: it is not in one of these forms.
    """
    fields = json.loads(line)
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get("peer"), str)
        or not fields.keys() <= _FIELDS
    ):
        raise ValueError('give an object with "peer", and "type" and "payload" or "text"; or "msg"')
    if ("type" in fields) == ("msg" in fields) or len(fields.keys() & {"payload", "text", "msg"}) > 1:
        raise ValueError('give the message either as "type" with "payload" or "text", or as "msg"')
    if not all(isinstance(fields.get(name, ""), str) for name in ("payload", "text", "msg")):
        raise ValueError('"payload", "text" and "msg" are strings')
    if "msg" in fields:
        return Outbound(fields["peer"], msg=fields["msg"])
    type = _type(fields["type"])
    if "text" in fields:
        return Outbound(fields["peer"], type, fields["text"].encode())
    return Outbound(fields["peer"], msg=f"{type:04x}{fields.get('payload', '')}")


def _type(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f'"type" must be a number, not {json.dumps(value)}')
    return message_type(str(value))


class _Batch:
    """Counts what becomes of the lines; the lines themselves are not kept.

    Args:
        settings: the options of every command.
        report: calls a function that writes to stderr.
        even: let messages of even types pass.
    """

    def __init__(
        self, settings: Settings, report: Callable[[Callable[[], None]], None], *, even: bool
    ) -> None:
        self._settings = settings
        self._report = report
        self._even = even
        self._lines: dict[int, int] = {}  # the line of each message in flight, by its index
        self.sent = 0
        self.failures: Counter[tuple[str, str]] = Counter()
        """How many failed, by reason and the name of the gRPC code."""

    @property
    def failed(self) -> int:
        """How many lines failed."""
        return self.failures.total()

    @property
    def status(self) -> int:
        """The exit status."""
        codes = {code for _, code in self.failures}
        if not codes:
            return 0
        return MIXED + (int(grpc.StatusCode[codes.pop()].value[0]) if len(codes) == 1 else 0)

    def messages(self, file: IO[bytes]) -> Iterator[Outbound]:
        """Read the file, line by line."""
        index = 0
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            try:
                message = parse(line)
            except (ValueError, RecursionError) as error:
                self._refuse(number, BAD_LINE, f"The line is not a message: {error}.")
                continue
            problem = None if self._even else even_type(message.type, str(message.msg))
            if problem is not None:
                self._refuse(number, EVEN_TYPE, problem)
            else:
                self._lines[index] = number
                index += 1
                yield message

    def take(self, index: int, outcome: Sent | CustomMsgError) -> None:
        """Take what became of a message."""
        number = self._lines.pop(index)
        if isinstance(outcome, Sent):
            self.sent += 1
            return
        self.failures[str(outcome.reason), outcome.code.name] += 1
        self._report(lambda: show.failed_line(number, outcome, as_json=self._settings.json))

    def _refuse(self, number: int, reason: str, message: str) -> None:
        code = grpc.StatusCode.INVALID_ARGUMENT
        self.failures[reason, code.name] += 1
        failure = CustomMsgError(reason, code, message)
        self._report(lambda: show.failed_line(number, failure, as_json=self._settings.json))


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Read lines; of a line that is too long, only the beginning: enough to be refused."""
    while line := file.readline(MAX_LINE):
        end = line
        while len(end) == MAX_LINE and not end.endswith(b"\n"):
            end = file.readline(MAX_LINE)
        yield line


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


class _Progress:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self, file: IO[bytes], *, quiet: bool) -> None:
        self._file = file
        self._size = _size(file)
        columns = (BarColumn(), TaskProgressColumn()) if self._size else ()
        self._bar = Progress(
            TextColumn("{task.description}"),
            *columns,
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=self._size)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, sent: int, failed: int) -> None:
        """Show how far it is."""
        if not self._bar.disable:
            done = self._file.tell() if self._size else None
            self._bar.update(self._task, completed=done, description=f"{sent:,} sent, {failed:,} failed")

    def print(self, write: Callable[[], None]) -> None:
        """Hide the bar while a function writes to stderr."""
        self._bar.stop()
        write()
        self._bar.start()


def _size(file: IO[bytes]) -> int | None:
    """Return the size of a regular file, in bytes."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # io.UnsupportedOperation, too: it is not a file of the operating system
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None
