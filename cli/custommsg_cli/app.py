"""The commands, each one call of the client, and the exit statuses."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, CycloptsError, Group, Parameter, Token

from custommsg import _core
from custommsg._retry import checked_timeout
from custommsg.errors import CustomMsgError
from custommsg.model import Checked, Sent
from custommsg_cli import batch as batches
from custommsg_cli import show
from custommsg_cli.listen import listen
from custommsg_cli.settings import Global, Settings, message_type

USAGE: Final = 2
INTERRUPTED: Final = 130
RPC_FAILED: Final = 64
"""Plus the number of the gRPC code, as grpcurl does it."""

# Hex digits of the largest message, and room for white space at the ends.
_STDIN_LIMIT: Final = 2 * _core.MAX_MESSAGE_SIZE + 1024


app = App(
    name="custommsg",
    version=lambda: version("custommsg"),
    help="Send and receive Lightning custom messages through a custommsg gateway.",
)
app.command(listen)
consumers = App(name="consumers", help="List or delete the named consumers of the inbox.")
app.command(consumers)
app.meta.group_parameters = Group("Options of every command", sort_key=100)


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an alias may hold what the terminal's encoding has not
    try:
        status = app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        sys.stderr.write(f"error: {show.printable(str(error))}\nTry: custommsg --help\n")
        return USAGE
    except BrokenPipeError:  # who read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return status or 0  # None after --help and --version


def _check_address(_: object, value: str) -> None:
    _core.target(value)


def _check_timeout(_: object, value: float) -> None:
    checked_timeout(value)


def _message_type(_: object, tokens: Sequence[Token]) -> int:
    return message_type(tokens[0].value)


@app.meta.default
def _with_settings(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    address: Annotated[
        str, Parameter(env_var="CUSTOMMSG_ADDRESS", validator=_check_address)
    ] = _core.DEFAULT_ADDRESS,
    timeout: Annotated[float, Parameter(validator=_check_timeout)] = 10.0,
    json: Annotated[bool, Parameter(negative="")] = False,
    ca: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_CA")] = None,
    cert: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_CERT")] = None,
    key: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_KEY")] = None,
    rune: Annotated[str | None, Parameter(env_var="CUSTOMMSG_RUNE")] = None,
) -> int:
    """Read what is the same for every command, and run the one asked for.

    Args:
        tokens: The command and what belongs to it.
        address: The gateway: host:port or unix:/path.
        timeout: Seconds until a call is given up.
        json: Print JSON, errors too.
        ca: What the gateway's certificate is signed by (PEM); then the connection is TLS.
        cert: Our certificate (PEM), where the gateway asks for one.
        key: Its key (PEM).
        rune: The rune to show. Better in the environment: others can see a command's flags.
    """
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    settings = Settings(address, timeout, json, ca, cert, key, rune)
    try:
        status = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, settings))
    except CustomMsgError as error:
        show.error(error, as_json=json)
        return RPC_FAILED + int(error.code.value[0])
    return status or 0


@app.command
def send(
    peer: str | None = None,
    /,
    *,
    type: Annotated[int | None, Parameter(converter=_message_type)] = None,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    hex: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    msg: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    check: Annotated[bool, Parameter(negative="")] = False,
    batch: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    settings: Global,
) -> int:
    """Send one custom message to one connected peer; or, with --batch, many.

    Success means that the node has queued it: the Lightning protocol has no word of delivery.

    A line of a batch is {"peer": HEX, "type": NUMBER, "payload": HEX}, with "text" instead of "payload" for
    text, or {"peer": HEX, "msg": HEX}. A line that fails is told by its number, and stops no other. The exit
    status is 0 if all were sent, 64 + the gRPC code if all failures have the same, 64 if not.

    Args:
        peer: The peer's node id, 66 hex digits.
        type: The message's type, decimal or 0x hex.
        text: The payload as text; "-" reads it from the standard input, whatever bytes they are.
        hex: The payload in hex; "-" reads it from the standard input.
        msg: The whole message in hex, its type included, instead of --type; "-" reads it likewise.
        check: Run every check, the node's own included, and send nothing.
        batch: A file with one message a line, as JSON; "-" for the standard input.
        settings: What is the same for every command.
    """
    if batch is not None:
        if check or any(given is not None for given in (peer, type, text, hex, msg)):
            raise CycloptsError(msg="With --batch the messages are in the file alone.")
        return _send_batch(batch, settings)
    if peer is None:
        raise CycloptsError(msg="Give the peer's node id, or --batch with a file of messages.")
    if (type is None) == (msg is None) or sum(given is not None for given in (text, hex, msg)) > 1:
        raise CycloptsError(
            msg="Give the message either as --type with --text or --hex, or as --msg with all of it."
        )
    result: Sent | Checked
    with settings.connect() as client:
        call = client.check if check else client.send
        if msg is not None:
            result = call(peer, msg=_hex(msg))
        elif hex is not None:
            result = call(peer, msg=f"{type:04x}{_hex(hex)}")
        else:
            result = call(peer, type=type, payload=_text(text or ""))
    show.result(result, as_json=settings.json)
    return 0


def _send_batch(path: str, settings: Settings) -> int:
    try:
        return batches.send(path, settings)
    except OSError as error:
        if error.filename is None:  # not the file's
            raise
        raise CycloptsError(msg=f"{path}: {error.strerror}") from None


@app.command
def peers(*, settings: Global) -> None:
    """List the peers that the node knows now."""
    with settings.connect() as client:
        show.peers(client.peers(), as_json=settings.json)


@app.command
def info(*, settings: Global) -> None:
    """Describe the gateway, its node, and the link between the two."""
    with settings.connect() as client:
        show.info(client.info(), as_json=settings.json)


@app.command
def inbox(*, settings: Global) -> None:
    """Show what the inbox holds now, and how far each consumer has come."""
    with settings.connect() as client:
        show.inbox(client.inbox(), client.consumers(), as_json=settings.json)


@consumers.default
def _list_consumers(*, settings: Global) -> None:
    """List the named consumers and how far each has come."""
    with settings.connect() as client:
        show.consumers(client.consumers(), as_json=settings.json)


@consumers.command(name="delete")
def _delete_consumer(name: str, /, *, settings: Global) -> None:
    """Forget a named consumer: its next subscription starts anew.

    Args:
        name: The name that its subscription gave.
        settings: What is the same for every command.
    """
    with settings.connect() as client:
        client.delete_consumer(name)
    show.forgotten(name, as_json=settings.json)


def _hex(argument: str) -> str:
    if argument != "-":
        return argument
    return sys.stdin.buffer.read(_STDIN_LIMIT).strip().decode("ascii", "replace")


def _text(argument: str) -> bytes:
    if argument == "-":
        return sys.stdin.buffer.read(_STDIN_LIMIT)
    return argument.encode("utf-8", "surrogateescape")  # what is no UTF-8 stays the bytes that were given
