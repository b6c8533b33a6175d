"""The sub-commands that call the gateway once, and the exit statuses."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)
from cyclopts.validators import Number

from custommsg import DEFAULT_ADDRESS
from custommsg.errors import CustomMsgError
from custommsg.model import Checked, Sent
from custommsg.sync import Client
from custommsg_cli import batch as batches
from custommsg_cli import show
from custommsg_cli.content import content_of, even_problem, type_of
from custommsg_cli.outbox import outbox, queue, send_and_wait
from custommsg_cli.receive import events, listen
from custommsg_cli.settings import Flag, Global, Settings, type_argument, usage_error

USAGE: Final = 2
INTERRUPTED: Final = 130
RPC_FAILED: Final = 64
"""Plus the number of the gRPC code, as grpcurl does."""

app = App(
    name="custommsg",
    version=lambda: version("custommsg-cli"),
    help="Send and receive Lightning custom messages through a custommsg gateway.",
)
app.command(listen)
app.command(events)
consumers = App(name="consumers", help="List or delete the named consumers of the inbox.")
app.command(consumers)
app.command(queue)
app.command(outbox)
app.meta.group_parameters = Group("Options of every command", sort_key=100)


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an alias may hold what the terminal's encoding has not
    try:
        status = app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        command = error.command_chain or app.parse_commands(arguments)[0]
        show.usage_error(_explain(error), command, as_json="--json" in arguments)
        return USAGE
    except BrokenPipeError:  # whoever reads our output has stopped, e.g. head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return status or 0  # None after --help and --version


def _explain(error: CycloptsError) -> str:
    """Say in plain words what the parser found wrong."""
    error.verbose = False
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        return f"{name} needs a value." if name.startswith("-") else f"{name} is missing."
    if isinstance(error, UnusedCliTokensError):
        return f"Unexpected argument: {' '.join(error.unused_tokens or [])}"
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in (int, float):
        return f"{error.token.keyword} takes a number, not {error.token.value!r}."
    return str(error)


@app.meta.default
def _with_settings(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    address: Annotated[str, Parameter(env_var="CUSTOMMSG_ADDRESS")] = DEFAULT_ADDRESS,
    timeout: float = 10.0,
    json: Flag = False,
    ca: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_CA")] = None,
    cert: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_CERT")] = None,
    key: Annotated[Path | None, Parameter(env_var="CUSTOMMSG_KEY")] = None,
    rune: Annotated[str | None, Parameter(env_var="CUSTOMMSG_RUNE")] = None,
) -> int:
    """Read the options of every command, and run the command.

    Args:
        tokens: The command and its arguments.
        address: The gateway: host:port or unix:/path.
        timeout: How long a call may take, in seconds.
        json: Print JSON; errors, too.
        ca: The certificate authority of the gateway's certificate (PEM file); then the connection is TLS.
        cert: Our certificate (PEM file), if the gateway asks for one.
        key: Its private key (PEM file).
        rune: The rune to send with each call. Prefer the environment variable: other users of this machine can see the
            command line.
    """
    settings = Settings(address, timeout, json, ca, cert, key, rune)
    try:
        command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
        status = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, settings))
    except CustomMsgError as error:
        show.error(error, as_json=json)
        return RPC_FAILED + int(error.code.value[0])
    except CycloptsError as error:
        error.command_chain = error.command_chain or app.parse_commands(tokens)[0]
        raise
    return status or 0


@app.command
def send(
    peer: str | None = None,
    /,
    *,
    type: Annotated[int | None, Parameter(converter=type_argument)] = None,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    hex: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    msg: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    even: Flag = False,
    check: Flag = False,
    wait: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    batch: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    settings: Global,
) -> int:
    """Send one custom message to one connected peer; or many, with --batch.

    Success means that the node has queued it: the Lightning protocol does not acknowledge delivery.

    A line of a batch is {"peer": HEX, "type": NUMBER, "payload": HEX}, with "text" instead of "payload" for text, or
    {"peer": HEX, "msg": HEX}. A line that fails is reported with its number, and does not stop the others. The exit
    status is 0 if all were sent, 64 + the gRPC code if all failures have the same code, and 64 otherwise.

    Args:
        peer: The peer's node id, 66 hex digits.
        type: The message's type, decimal or 0x hex.
        text: The payload as text; "-" reads it from the standard input, whatever bytes they are.
        hex: The payload in hex; "-" reads it from the standard input.
        msg: The whole message in hex, its type included, instead of --type; "-" reads it from the standard input.
        even: Send a message of an even type. A peer that does not know an even type disconnects. Not needed if the
            inbox has a message of this type from the peer.
        check: Run every check, the node's own included, and send nothing.
        wait: Wait for the peer for so many seconds if it is not connected; the exit status is 1 if it was not sent.
        batch: A file with one message in JSON on each line; "-" for the standard input.
        settings: The options of every command.
    """
    if batch is not None:
        if check or any(given is not None for given in (peer, type, text, hex, msg, wait)):
            raise usage_error("With --batch, give the messages in the file only.")
        return _send_batch(batch, settings, even=even)
    if peer is None:
        raise usage_error("Give the peer's node id, or --batch with a file of messages.")
    content = content_of(type, text, hex, msg)
    if wait is not None and check:
        raise usage_error("Give either --check or --wait.")
    result: Sent | Checked
    with settings.connect() as client:
        problem = None if even or check else even_problem(content)
        if problem is not None and not _has_sent(client, peer, type_of(content)):
            raise usage_error(problem)
        if wait is not None:
            return send_and_wait(client, peer, content, wait, as_json=settings.json)
        result = client.check(peer, **content) if check else client.send(peer, **content)
    show.result(result, as_json=settings.json)
    return 0


def _has_sent(client: Client, peer: str, type: int | None) -> bool:
    """Return whether the inbox has a message of this type from the peer: then the peer knows the type."""
    with suppress(CustomMsgError):
        return type is not None and any(client.list_events(types=[type], peers=[peer], page_size=1))
    return False


def _send_batch(path: str, settings: Settings, *, even: bool) -> int:
    try:
        return batches.send(path, settings, even=even)
    except OSError as error:
        if error.filename is None:  # it is not about the file
            raise
        raise usage_error(f"{path}: {error.strerror}") from None


@app.command
def peers(*, settings: Global) -> None:
    """List the peers that the node knows now."""
    with settings.connect() as client:
        show.peers(client.peers(), as_json=settings.json)


@app.command
def info(*, settings: Global) -> None:
    """Describe the gateway, its node, and the link between them."""
    with settings.connect() as client:
        show.info(client.info(), as_json=settings.json)


@app.command
def inbox(*, settings: Global) -> None:
    """Show what the inbox holds now, and how far each consumer has come."""
    with settings.connect() as client:
        show.inbox(client.inbox(), client.consumers(), as_json=settings.json)


@consumers.default
@consumers.command(name="list")
def _list_consumers(*, settings: Global) -> None:
    """List the named consumers and how far each has come."""
    with settings.connect() as client:
        show.consumers(client.consumers(), as_json=settings.json)


@consumers.command(name="delete")
def _delete_consumer(name: str, /, *, settings: Global) -> None:
    """Delete a named consumer and its position: the next subscription of the name starts anew.

    Args:
        name: The consumer's name.
        settings: The options of every command.
    """
    with settings.connect() as client:
        client.delete_consumer(name)
    show.deleted(name, as_json=settings.json)
