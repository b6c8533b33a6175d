"""What drives a Python client from within its own environment: a line of JSON in, lines of JSON out.

In: {"call": name, "arguments": {...}}. Out: {"outcome": {...}} for each call, {"event": {...}} for each message that
arrives.
Standard library only: each client's environment holds that client and nothing of ours.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_writing = threading.Lock()


def say(what: dict[str, Any]) -> None:
    """Write one line."""
    with _writing:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def serve(calls: dict[str, Callable[..., dict[str, Any] | None]]) -> None:
    """Make the calls that are asked for, until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        say({"outcome": {"code": "OK"} | (calls[asked["call"]](**asked["arguments"]) or {})})


def forward(messages: Iterator[tuple[bytes, bytes]]) -> None:
    """Say each message of a stream (peer, message with its type), from a thread of its own."""

    def run() -> None:
        for peer, message in messages:
            say({"event": {"peer": peer.hex(), "message": message.hex()}})

    threading.Thread(target=run, daemon=True).start()
