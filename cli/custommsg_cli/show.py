"""What the sub-commands print: columns for people, JSON for programs; errors go to stderr."""

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
from custommsg.model import Checked, Consumer, Enqueued, Inbox, Info, OutboxEntry, OutboxState, Peer, Sent

# Node ids and positions are there to be copied: without a terminal, nothing is wrapped.
WIDTH_OF_A_FILE: Final = 240
"""Columns."""


def result(value: Sent | Checked, *, as_json: bool) -> None:
    """Print the result of a send or a check."""
    if as_json:
        return _json(asdict(value))
    type = f"type {value.type} (0x{value.type:04x})"
    # The status of a check says again that it was checked and not sent.
    return line(f"Sent: {type}. {value.status}" if isinstance(value, Sent) else f"Checked, not sent: {type}.")


def peers(values: Sequence[Peer], *, as_json: bool) -> None:
    """Print the peers, the connected ones first."""
    if as_json:
        return _json([asdict(peer) for peer in values])
    if not values:
        return line("The node has no peers. Connect one: lightning-cli connect NODE_ID HOST PORT")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("PEER ID", no_wrap=True, min_width=66)
    table.add_column("CONNECTED")
    table.add_column("ADDRESS", overflow="fold")
    table.add_column("CHANNELS", justify="right")
    for peer in sorted(values, key=lambda peer: (not peer.connected, peer.peer_id)):
        _row(
            table,
            [peer.peer_id_hex, "yes" if peer.connected else "no", peer.address, str(peer.num_channels)],
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
    """Print what the inbox holds, and its consumers."""
    if as_json:
        return _json(asdict(value) | {"consumers": [asdict(consumer) for consumer in names]})
    table = Table.grid(padding=(0, 2))
    _row(table, ["attached to node", "yes" if value.attached else "no: what peers send now is lost"])
    _row(table, ["events", f"about {value.count:,}, {value.size:,} bytes"])
    if value.oldest is not None:
        _row(table, ["oldest event", _local(value.oldest)])
    _row(table, ["earliest position", value.earliest])
    _row(table, ["latest position", value.latest])
    if value.error:
        _row(table, ["error", value.error])
    _print(table)
    line("")
    return consumers(names, as_json=False)


def consumers(values: Sequence[Consumer], *, as_json: bool) -> None:
    """Print the named consumers."""
    if as_json:
        return _json([asdict(consumer) for consumer in values])
    if not values:
        return line("There are no consumers. To make one: custommsg listen --consumer NAME")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("CONSUMER", overflow="fold")
    table.add_column("POSITION", overflow="fold")
    table.add_column("LAG", justify="right")
    table.add_column("ACKNOWLEDGED")
    table.add_column("")
    for consumer in values:
        expired = "expired" if consumer.expired else ""
        _row(table, [consumer.name, consumer.position, str(consumer.lag), _local(consumer.updated), expired])
    return _print(table)


def deleted(name: str, *, as_json: bool) -> None:
    """Print that a consumer was deleted."""
    if as_json:
        return _json({"deleted": name})
    return line(f"Deleted: {name}")


def enqueued(value: Enqueued, *, as_json: bool) -> None:
    """Print that a message is in the outbox."""
    if as_json:
        return _json(asdict(value))
    if value.existed:
        return line(f"Queued before: entry {value.entry_id} is {value.state.name}.")
    return line(f"Queued: entry {value.entry_id}. It is sent when the peer is connected.")


def entries(values: Sequence[OutboxEntry], *, as_json: bool) -> None:
    """Print entries of the outbox."""
    if as_json:
        return _json([asdict(entry) for entry in values])
    if not values:
        return line("There are no such entries. To make one: custommsg queue PEER --type TYPE --text TEXT")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("ENTRY", no_wrap=True)
    table.add_column("PEER", overflow="fold")
    table.add_column("TYPE", justify="right")
    table.add_column("SIZE", justify="right")
    table.add_column("STATE")
    table.add_column("QUEUED")
    table.add_column("EXPIRES")
    table.add_column("KEY", overflow="fold")
    for one in values:
        state = f"{one.state.name} ({one.reason})" if one.reason else one.state.name
        expires = _local(one.expires) if one.expires is not None else ""
        size = str(len(one.payload))
        cells = [one.id, one.peer_id_hex, str(one.type), size, state, _local(one.created), expires]
        _row(table, [*cells, one.idempotency_key])
    return _print(table)


def batch(sent: int, failures: Mapping[tuple[str, str], int], *, as_json: bool) -> None:
    """Print how many messages were sent, and how many were not, by reason and code."""
    ranked = sorted(failures.items(), key=lambda failure: (-failure[1], failure[0]))
    failed = sum(failures.values())
    if as_json:
        reasons = [{"reason": reason, "code": code, "count": count} for (reason, code), count in ranked]
        return _json({"sent": sent, "failed": failed, "failures": reasons})
    line(f"Sent: {sent:,} of {sent + failed:,}.")
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
    """Print on stderr what happens while a command runs."""
    sys.stderr.write((_dumps({"notice": text}) if as_json else f"note: {printable(text)}") + "\n")


def usage_error(text: str, command: Sequence[str], *, as_json: bool) -> None:
    """Print on stderr how a command was used wrongly, and where to look."""
    text, name = " ".join(text.split()), " ".join(["custommsg", *command])
    if as_json:
        sys.stderr.write(_dumps({"error": {"reason": "USAGE", "message": text}}) + "\n")
    else:
        sys.stderr.write(f"error: {printable(text)}\nTry: {name} --help\n")


def error(failure: CustomMsgError, *, as_json: bool) -> None:
    """Print on stderr why a call failed, and what to do next."""
    if as_json:
        sys.stderr.write(_dumps({"error": _error_fields(failure)}) + "\n")
        return
    lines = [f"error: {failure.reason}: {failure.message}"]
    lines += [
        f"  {violation.field}: {violation.description}"
        for violation in failure.violations
        if violation.description != failure.message
    ]
    if failure.retry_after is not None:
        lines.append(f"Try again in {failure.retry_after:.3g} s.")
    if failure.reason is Reason.NOT_SENT and failure.code.name == "UNAVAILABLE":
        lines.append("Give the gateway's address with --address or CUSTOMMSG_ADDRESS.")
    if failure.detail:
        lines.append(f"gRPC says: {failure.detail}")
    sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def printable(text: str) -> str:
    """Replace control characters, which could command the terminal: peers and other nodes write some of the texts."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _error_fields(failure: CustomMsgError) -> dict[str, object]:
    return {
        "reason": str(failure.reason),
        "code": failure.code.name,
        "message": failure.message,
        "detail": failure.detail,
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
    # Columns are padded with spaces at the end of the line.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def line(text: str) -> None:
    """Print a line of text."""
    sys.stdout.write(f"{printable(text)}\n")


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _json(value: object) -> None:
    sys.stdout.write(_dumps(value) + "\n")


def _dumps(value: object) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: bytes | datetime | OutboxState) -> str:
    if isinstance(value, OutboxState):
        return value.name
    return value.isoformat() if isinstance(value, datetime) else value.hex()
