"""`custommsg-server`: parse the command line, call the app."""

from __future__ import annotations

import os
import sys

# gRPC's C core writes plain text between our structured lines, unless told not to before it is loaded. `serve` reads
# it (native_log): nothing else tells why a handshake failed.
os.environ.setdefault("GRPC_VERBOSITY", "INFO" if sys.argv[1:2] == ["serve"] else "NONE")

import asyncio
import inspect
import resource
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

from cyclopts import App, Parameter

from custommsg_server import app as gateway
from custommsg_server import devnode, logs, native_log, tryout
from custommsg_server.config import Settings, SettingsError, load
from custommsg_server.doctor import report
from custommsg_server.doctor.examine import examine
from custommsg_server.doctor.finding import Finding, is_well
from custommsg_server.plugin.stdio import is_started_by_node
from custommsg_server.rpc import probe
from custommsg_server.rpc.access import certs
from custommsg_server.rpc.listen import ListenError

T = TypeVar("T")

cli = App(
    name="custommsg-server",
    help="A gRPC gateway for Lightning custom messages.",
    version=version("custommsg"),
)


def serve(*, config: Path | None = None, **flags: Any) -> int:
    """Run the gateway beside a lightningd.

    Every flag is also an environment variable (--rpc-file: CUSTOMMSG_RPC_FILE) and a key of the TOML file
    (rpc_file).
    """
    given = {name: value for name, value in flags.items() if value is not None}
    settings = load(given, config)
    _allow_many_connections()
    with native_log.captured():
        logs.configure(settings.log_level, settings.log_format)
        _run(_until_signal(lambda stop: gateway.serve(settings, stop, lambda: load(given, config))))
    return 0


def _allow_many_connections() -> None:
    # Each takes a file descriptor, and the usual limit of 1,024 can be raised by ourselves (setrlimit(2)).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@cli.command(name="certs")
def make_certs(
    folder: Path,
    /,
    *,
    host: Annotated[tuple[str, ...], Parameter(help="Names and addresses of the server.")] = (
        "localhost",
        "127.0.0.1",
        "::1",
    ),
    client: Annotated[str, Parameter(help="The client's name.")] = "client",
) -> int:
    """Make a CA, and certificates for a server and a client, in a folder; nothing is overwritten."""
    for path in certs.make(folder, host, client):
        print(path)  # noqa: T201 -- asked for
    return 0


def doctor(*, config: Path | None = None, json: bool = False, **flags: Any) -> int:
    """Check settings, lightningd, inbox, certificates and addresses, and say what to do about each.

    It takes the settings of `serve`, changes nothing, and exits with 1 if something keeps a gateway from working.
    """
    logs.configure("critical", "console")
    try:
        settings = load({name: value for name, value in flags.items() if value is not None}, config)
        findings = _run(examine(settings))
    except SettingsError as error:
        findings = [
            Finding("settings", "fix", str(error), "custommsg-server serve --help says what there is.")
        ]
    print(report.as_json(findings) if json else report.as_text(findings))  # noqa: T201 -- asked for
    return 0 if is_well(findings) else 1


@cli.command(name="plugin")
def run_as_plugin() -> int:
    """Run the gateway as a plugin that lightningd has started: its settings are lightningd's options."""
    if not is_started_by_node():
        print(  # noqa: T201 -- said to a person, or to an installer that tries whether this runs
            "This is a plugin of lightningd: write plugin=... in its configuration, or use lightning-cli plugin start."
        )
        return 0
    base = load({})
    logs.configure(base.log_level, "json")
    _run(_until_signal(lambda stop: gateway.serve_as_plugin(base, stop)))
    return 0


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)
    finally:
        logs.flush()


async def _until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run something until SIGTERM or Ctrl-C; the second of them cuts short what takes too long to end."""
    stop = asyncio.Event()
    running = asyncio.ensure_future(run(stop))

    def end() -> None:
        if stop.is_set():
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    with suppress(asyncio.CancelledError):
        await running


@cli.command
def health(
    *,
    address: Annotated[str, Parameter(help="host:port or unix:/path, without TLS.")] = probe.ADDRESS,
    service: Annotated[str, Parameter(help="Empty: the process. With a service's name: also its node.")] = "",
) -> int:
    """Ask a running gateway for its health; exit with 0 if it serves."""
    said = probe.check(address, service)
    print(said)  # noqa: T201 -- said to the person at the terminal
    return int(said != probe.SERVING)


@cli.command(name="try")
def try_out(
    *,
    listen: Annotated[str, Parameter(help="Where the gateway listens.")] = "127.0.0.1:9737",
    json: Annotated[bool, Parameter(help="Print one JSON object a line, for a program.")] = False,
) -> int:
    """Run a gateway on an embedded node with a peer, to try it out."""
    logs.configure("warning", "auto")
    _run(_until_signal(lambda stop: tryout.try_out(listen, json, stop)))
    return 0


@cli.command(name="devnode")
def run_devnode(
    *,
    lightning_dir: Annotated[Path, Parameter(help="Its directory; it keeps its key there.")],
    network: Annotated[str, Parameter(help="Its network, as lightningd names it.")] = "regtest",
    listen: Annotated[str, Parameter(help="Where peers find it; port 0 takes a free one.")] = "127.0.0.1:0",
    connect: Annotated[tuple[str, ...], Parameter(help="Peers to connect to: ID@HOST:PORT.")] = (),
    plugin: Annotated[tuple[Path, ...], Parameter(help="Plugins to start with it.")] = (),
    even_type: Annotated[tuple[int, ...], Parameter(help="Even types of custom messages to accept.")] = (),
) -> int:
    """Run the embedded node: a small real Lightning node, without channels and without money."""
    logs.configure("info", "auto")

    async def run(stop: asyncio.Event) -> None:
        node = asyncio.ensure_future(
            devnode.serve(
                lightning_dir,
                network,
                listen,
                connect=connect,
                plugins=plugin,
                even_types=even_type,
                ready=_say,
            )
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({node, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (node, stopping):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await node

    def _say(node: devnode.DevNode) -> None:
        print(f"{node.id.hex()}@{node.address}  rpc-file {node.rpc_file}", flush=True)  # noqa: T201

    _run(_until_signal(run))
    return 0


def _with_settings_as_flags(command: Any, *more: inspect.Parameter) -> Any:
    """Give a command one flag for each setting, so that each is described in one place."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *more,
        inspect.Parameter(
            "config", keyword, default=None, annotation=Annotated[Path | None, Parameter(help="A TOML file.")]
        ),
    ]
    for name, field in Settings.model_fields.items():
        text = f"{field.description} [default: {_default(field.default)}]"
        kind: Any = tuple[str, ...] if name == "listen" else field.annotation
        annotation = Annotated[Optional[kind], Parameter(help=text, show_default=False)]  # noqa: UP045 -- computed
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _default(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


_JSON = inspect.Parameter(
    "json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, Parameter(help="Print JSON, for a program.")],
)
cli.command(_with_settings_as_flags(serve), name="serve")
cli.command(_with_settings_as_flags(doctor, _JSON), name="doctor")


def main() -> None:
    """Run the command line; end with its exit status."""
    try:
        sys.exit(cli())
    except (SettingsError, ListenError, certs.CertsError, devnode.DirectoryError, devnode.PeerError) as error:
        print(f"custommsg-server: {error}", file=sys.stderr)  # noqa: T201 -- said to the person at the terminal
        sys.exit(2)


if __name__ == "__main__":
    main()
