"""Adds the log of gRPC's C core to our log, since the core reports nowhere else why a handshake failed.

The core writes only to file descriptor 2. So descriptor 2 becomes a pipe, which a thread reads: lines of the core
become log entries, other output is passed on unchanged. Our own log goes to the original descriptor 2.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

log = structlog.get_logger()

_LINE: Final = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.]+):\d+\] (.*)")
_HANDSHAKE: Final = re.compile(r"Handshake failed with error (.*)")
_QUIET: Final = ("is not suitable for production",)
_CODE: Final = re.compile(r"OPENSSL_internal:(\w+)(?:: (.*))?$")


@contextmanager
def captured() -> Iterator[None]:
    """Turn output of the core into log entries, for as long as the context lasts.

    Set up logging within it, since it replaces `sys.stderr`. The core writes only if GRPC_VERBOSITY=INFO was set before
    gRPC was imported.
    """
    terminal = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    before, sys.stderr = sys.stderr, terminal
    # Output of a crash has to go to the terminal: nobody reads the pipe then.
    faulthandler.enable(terminal)
    thread = threading.Thread(target=_read, args=(reading, terminal.fileno()), name="native-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(terminal.fileno(), 2)  # the pipe has no writer left: the thread ends
        thread.join(1)
        sys.stderr = before
        faulthandler.disable()


def _read(pipe: int, terminal: int) -> None:
    with os.fdopen(pipe, "rb") as lines:
        for line in lines:
            with suppress(OSError):  # reading has to continue, or writers to the pipe would block
                if not tell(line.decode(errors="replace").rstrip()):
                    os.write(terminal, line)


def tell(line: str) -> bool:
    """Log a line of the core; return False if the line is not from the core."""
    found = _LINE.fullmatch(line)
    if found is None:
        return False
    level, source, text = found.groups()
    if handshake := _HANDSHAKE.fullmatch(text):
        log.warning("TLS handshake failed", why=_reason(handshake[1]))
    elif not any(quiet in text for quiet in _QUIET):
        say = {"I": log.debug, "W": log.warning}.get(level, log.error)
        say("gRPC's core", source=source, said=text)
    return True


def _reason(text: str) -> str:
    """Name BoringSSL's reason: the text after it is that of the last verification, often of another handshake."""
    code = _CODE.search(text)
    if code is None:
        return text
    return f"{code[1]}: {code[2]}" if code[1] == "CERTIFICATE_VERIFY_FAILED" else code[1]
