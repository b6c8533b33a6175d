"""What the commands print: columns for people, JSON for programs; errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from custommsg.errors import CustomMsgError, Reason
from custommsg.model import Checked, Consumer, Inbox, Info, Peer, Sent

# A node id is there to be copied: where no terminal sets the width, nothing is wrapped.
WIDTH_OF_A_FILE: Final = 240
"""Columns."""


def result(value: Sent | Checked, *, as_json: bool) -> None:
    """Print the answer to a send or a check."""
    if as_json:
        return _json(asdict(value))
    done = "Sent" if isinstance(value, Sent) else "Checked, not sent"
    return _line(f"{done}: type {value.type} (0x{value.type:04x}). {value.status}")


def peers(values: Sequence[Peer], *, as_json: bool) -> None:
    """Print the peers, those connected first."""
    if as_json:
        return _json([asdict(peer) for peer in values])
    if not values:
        return _line("The node has no peers. Connect one: lightning-cli connect NODE_ID HOST PORT")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("NODE ID", no_wrap=True, min_width=66)
    table.add_column("CONNECTED")
    table.add_column("ADDRESS", overflow="fold")
    table.add_column("CHANNELS", justify="right")
    for peer in sorted(values, key=lambda peer: (not peer.connected, peer.node_id)):
        _row(
            table,
            [peer.node_id_hex, "yes" if peer.connected else "no", peer.address, str(peer.num_channels)],
        )
    return _print(table)


def info(value: Info, *, as_json: bool) -> None:
    """Print the gateway and its node."""
    if as_json:
        return _json(asdict(value))
    table = Table.grid(padding=(0, 2))
    _row(table, ["gateway", value.gateway_version])
    _row(table, ["link to node", "up" if value.node_link_up else "down"])
    if value.node is not None:
        _row(table, ["node id", value.node.node_id_hex])
        _row(table, ["alias", value.node.alias])
        _row(table, ["network", value.node.network])
        _row(table, ["version", value.node.version])
    return _print(table)


def inbox(value: Inbox, names: Sequence[Consumer], *, as_json: bool) -> None:
    """Print what the inbox holds, and who reads it."""
    if as_json:
        return _json(asdict(value) | {"consumers": [asdict(consumer) for consumer in names]})
    table = Table.grid(padding=(0, 2))
    _row(table, ["inbox", value.inbox_id])
    _row(table, ["attached to node", "yes" if value.attached else "no: what peers send now is lost"])
    held = f"{value.earliest} to {value.latest}" if value.count else f"none; the last was {value.latest}"
    _row(table, ["sequence numbers", held])
    _row(table, ["events", f"{value.count:,}, {value.size:,} bytes"])
    if value.oldest is not None:
        _row(table, ["oldest", _local(value.oldest)])
    if value.error:
        _row(table, ["error", value.error])
    _print(table)
    _line("")
    return consumers(names, as_json=False)


def consumers(values: Sequence[Consumer], *, as_json: bool) -> None:
    """Print the named consumers."""
    if as_json:
        return _json([asdict(consumer) for consumer in values])
    if not values:
        return _line("There are no consumers. One is made by: custommsg listen --consumer NAME")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("CONSUMER", overflow="fold")
    table.add_column("POSITION", justify="right")
    table.add_column("LAG", justify="right")
    table.add_column("ACKNOWLEDGED")
    table.add_column("")
    for consumer in values:
        expired = "expired" if consumer.expired else ""
        position, lag = str(consumer.position), str(consumer.lag)
        _row(table, [consumer.name, position, lag, _local(consumer.updated), expired])
    return _print(table)


def forgotten(name: str, *, as_json: bool) -> None:
    """Print that a consumer was deleted."""
    if as_json:
        return _json({"deleted": name})
    return _line(f"Deleted: {name}")


def batch(sent: int, failures: Mapping[tuple[str, str], int], *, as_json: bool) -> None:
    """Print how many messages were sent, and how many were not, by reason and code."""
    ranked = sorted(failures.items(), key=lambda failure: (-failure[1], failure[0]))
    failed = sum(failures.values())
    if as_json:
        reasons = [{"reason": reason, "code": code, "count": count} for (reason, code), count in ranked]
        return _json({"sent": sent, "failed": failed, "failures": reasons})
    _line(f"Sent: {sent:,} of {sent + failed:,}.")
    if not failures:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("REASON")
    table.add_column("CODE")
    table.add_column("COUNT", justify="right")
    for (reason, code), count in ranked:
        _row(table, [reason, code, f"{count:,}"])
    return _print(table)


def failed_line(number: int, failure: CustomMsgError, *, as_json: bool) -> None:
    """Print on stderr why a line of a batch failed."""
    if as_json:
        sys.stderr.write(_dumps({"line": number, "error": _error_fields(failure)}) + "\n")
    else:
        sys.stderr.write(printable(f"line {number}: {failure}") + "\n")


def notice(text: str, *, as_json: bool) -> None:
    """Print on stderr what happens while a command goes on."""
    sys.stderr.write((_dumps({"notice": text}) if as_json else f"note: {printable(text)}") + "\n")


def error(failure: CustomMsgError, *, as_json: bool) -> None:
    """Print on stderr why a call failed, and what to do next."""
    if as_json:
        sys.stderr.write(_dumps({"error": _error_fields(failure)}) + "\n")
        return
    lines = [f"error: {failure}"]
    lines += [
        f"  {violation.field}: {violation.description}"
        for violation in failure.violations
        if violation.description != failure.message
    ]
    if failure.retry_after is not None:
        lines.append(f"Try again in {failure.retry_after:.3g} s.")
    if failure.reason is Reason.NOT_SENT and failure.code.name == "UNAVAILABLE":
        lines.append("Give the gateway's address with --address or CUSTOMMSG_ADDRESS.")
    sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def printable(text: str) -> str:
    """Replace what could command a terminal: texts of peers and nodes are written by strangers."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _error_fields(failure: CustomMsgError) -> dict[str, object]:
    return {
        "reason": str(failure.reason),
        "code": failure.code.name,
        "message": failure.message,
        "metadata": failure.metadata,
        "retry_after": failure.retry_after,
        "violations": [asdict(violation) for violation in failure.violations],
    }


def _row(table: Table, cells: Iterable[str]) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))


def _print(table: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    with console.capture() as capture:
        console.print(table)
    # Columns padded to the width end in spaces, which nobody wants to copy.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _line(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _json(value: object) -> None:
    sys.stdout.write(_dumps(value) + "\n")


def _dumps(value: object) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: bytes | datetime) -> str:
    return value.isoformat() if isinstance(value, datetime) else value.hex()
