"""How events are printed: one line each, written out at once, for people or for programs."""

from __future__ import annotations

import json
import shutil
import sys
from codecs import getincrementaldecoder
from dataclasses import asdict
from typing import Final

from rich.cells import cell_len, set_cell_size

from custommsg.events import (
    Event,
    Interruption,
    Message,
    OutboxEntryEnded,
    PeerConnected,
    PeerDisconnected,
)
from custommsg.model import OutboxState
from custommsg_cli.show import WIDTH_OF_A_FILE, printable

_KINDS: Final = {
    Message: "message",
    PeerConnected: "peer_connected",
    PeerDisconnected: "peer_disconnected",
    Interruption: "interruption",
    OutboxEntryEnded: "outbox_entry_ended",
}
_TEXTS: Final = {PeerConnected: "connected", PeerDisconnected: "disconnected"}
_COLUMNS: Final = "{:<19}  {:<20}  {:<13}  {:>5}  {:>5}  {}"
_ELLIPSIS: Final = "\N{HORIZONTAL ELLIPSIS}"


class JsonLines:
    """One JSON object a line; bytes are hex, times are UTC."""

    def begin(self) -> None:
        """Print nothing: each line has the names of its fields."""

    def print(self, event: Event) -> None:
        """Print one event."""
        fields = {"kind": _KINDS[type(event)]} | asdict(event) | {"time": event.time.isoformat()}
        _write(json.dumps(fields, default=_plain))


class Columns:
    """Columns for people; times are local. A line fits the terminal, and has no control characters."""

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_OF_A_FILE

    def begin(self) -> None:
        """Print the head of each column."""
        _write(_COLUMNS.format("TIME", "POSITION", "PEER", "TYPE", "SIZE", "PAYLOAD"))

    def print(self, event: Event) -> None:
        """Print one event."""
        _write(self.line(event))

    def line(self, event: Event) -> str:
        """Make the line of one event."""
        kind, size, rest = "", "", ""
        if isinstance(event, Message):
            kind, size = str(event.type), str(len(event.payload))
            rest = preview(event.payload, self._width)
        elif isinstance(event, Interruption):
            rest = "messages before this may be missing" + (f" ({event.lost} lost)" if event.lost else "")
        elif isinstance(event, OutboxEntryEnded):
            kind, rest = str(event.type), f"{event.state.name} {event.reason}".rstrip()
            rest = f"{rest}: entry {event.entry_id} {event.idempotency_key}".rstrip()
        else:
            rest = _TEXTS[type(event)]
        peer = _short(event.peer_id_hex) if event.peer_id else ""
        time = f"{event.time.astimezone():%Y-%m-%d %H:%M:%S}"
        return _fit(printable(_COLUMNS.format(time, event.position, peer, kind, size, rest)), self._width)


def _plain(value: bytes | OutboxState) -> str:
    return value.name if isinstance(value, OutboxState) else value.hex()


def preview(payload: bytes, width: int) -> str:
    """Show the beginning of a payload: as text if it is printable text, else as hex with 0x before it.

    White space becomes single spaces. Control characters, which could command a terminal, make it hex.
    """
    if not payload:
        return ""
    head = payload[: 4 * width]  # a character has up to 4 bytes in UTF-8, and the cut may go through one
    try:
        text = getincrementaldecoder("utf-8")().decode(head, final=head == payload)
    except UnicodeDecodeError:
        return f"0x{head.hex()}"
    text = " ".join(text.split())
    return text if text and text.isprintable() else f"0x{head.hex()}"


def _short(peer_id: str) -> str:
    return f"{peer_id[:8]}{_ELLIPSIS}{peer_id[-4:]}"


def _fit(line: str, width: int) -> str:
    if cell_len(line) <= width:
        return line.rstrip()
    return set_cell_size(line, width - 1).rstrip() + _ELLIPSIS


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
