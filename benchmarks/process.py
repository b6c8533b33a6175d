"""One of our programs as a process, from its first line to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Final

_PATIENCE: Final = 20.0
"""Seconds until a program must be ready."""


class StartError(Exception):
    """A program did not start; the message says what it printed."""


@contextmanager
def started(
    name: str, module: str, *arguments: str, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours, its errors in a file in `folder`; end it in the end."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment() | dict(env or {}),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_children_on_sigterm() -> None:
    """Have SIGTERM end this program as Ctrl-C does: with all that it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def address_of(process: subprocess.Popen[str], log: Path) -> str:
    """Wait until a program of `benchmarks.programs` is ready; return its address.

    Raises:
        StartError: it ended instead.
    """
    line = stream_of(process.stdout).readline().strip()
    if not line:
        raise StartError(f"{log.stem} did not start:\n{log.read_text()[-2000:]}")
    return line


def wait_for_line(process: subprocess.Popen[str], log: Path, part: str) -> str:
    """Wait until a program has logged a line that contains `part`; return the line.

    Raises:
        StartError: it ended instead, or takes too long.
    """
    end = monotonic() + _PATIENCE
    while monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines():
            if part in line:
                return line
        sleep(0.02)
    raise StartError(f"{log.stem} did not say {part!r}:\n{log.read_text()[-2000:]}")


def stream_of(stream: IO[str] | None) -> IO[str]:
    """Return a stream of a process that has it."""
    assert stream is not None
    return stream


def environment() -> dict[str, str]:
    """Return our environment without the settings of somebody's own gateway, which must change nothing here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CUSTOMMSG_")}
