"""`custommsg-server`: parses the command line, and calls the app."""

# ruff: noqa: E402 -- some of this has to run before the libraries are loaded

from __future__ import annotations

import gc
import os
import sys

# The garbage collector would search all loaded modules again and again, which delays the start by 30 ms.
gc.disable()

# gRPC's C core writes plain text between our log lines, unless this is set before it is loaded. `serve` reads the text
# (native_log), since nothing else says why a handshake failed.
os.environ.setdefault("GRPC_VERBOSITY", "INFO" if sys.argv[1:2] == ["serve"] else "NONE")

# structlog loads rich if it is installed, for tracebacks that are not used here. It takes 50 ms and 3 MB.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: it is not found
import structlog  # noqa: F401

if sys.modules["rich"] is None:
    del sys.modules["rich"]

import inspect
import resource
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any, Final, Optional

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)

from custommsg_server import app as gateway
from custommsg_server.domain.errors import UserError
from custommsg_server.node.lightningd.channel import is_started_by_node
from custommsg_server.ops import logs, native_log
from custommsg_server.ops.probe import ADDRESS, SERVING, check
from custommsg_server.ops.process import run, until_signal
from custommsg_server.settings import Settings, SettingsError, load

gc.freeze()  # it never searches what is loaded by now
gc.enable()

PART_ENDED: Final = 70
"""The exit status after a part of the gateway has ended because of a bug: EX_SOFTWARE of sysexits.h."""

cli = App(
    name="custommsg-server",
    help="A gRPC gateway for Lightning custom messages.",
    version=version("custommsg-server"),
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
        run(until_signal(lambda stop: gateway.serve(settings, stop, lambda: load(given, config))))
    return 0


def _allow_many_connections() -> None:
    # Each takes a file descriptor. A process can raise the usual limit of 1,024 itself (setrlimit(2)).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@cli.command(name="certs")
def make_certs(
    folder: Path,
    /,
    *,
    host: Annotated[tuple[str, ...], Parameter(help="Host names and IP addresses of the server.")] = (
        "localhost",
        "127.0.0.1",
        "::1",
    ),
    client: Annotated[str, Parameter(help="The client's name.")] = "client",
) -> int:
    """Make a CA, and certificates for a server and a client, in a folder; nothing is overwritten."""
    from custommsg_server.access import certs  # it takes 14 ms to load: only where it is used

    for path in certs.make(folder, host, client):
        print(path)  # noqa: T201 -- the output of the command
    return 0


@cli.command(name="macaroon")
def make_macaroon(
    rune: Annotated[str, Parameter(help="A rune; - reads it from standard input.")],
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Also write it to this file, in binary.")] = None,
) -> int:
    """Put a rune into a macaroon, for clients of LND; print it as hex digits."""
    from custommsg_server.access import macaroon

    made = macaroon.make_checked(sys.stdin.readline().strip() if rune == "-" else rune)
    if file is not None:
        macaroon.write(file, made)
    print(made.hex())  # noqa: T201 -- the output of the command
    return 0


def doctor(*, config: Path | None = None, json: bool = False, **flags: Any) -> int:
    """Check settings, lightningd, inbox, certificates and addresses, and say what to do about each problem.

    It takes the settings of `serve` and changes nothing. It exits with 1 if a problem keeps the gateway from working.
    """
    from custommsg_server.ops.doctor.examine import examine
    from custommsg_server.ops.doctor.finding import Finding, as_json, as_text, is_well

    logs.configure("critical", "console")
    try:
        settings = load({name: value for name, value in flags.items() if value is not None}, config)
        findings = run(examine(settings))
    except SettingsError as error:
        findings = [
            Finding("settings", "fix", str(error), "custommsg-server serve --help lists all settings.")
        ]
    print(as_json(findings) if json else as_text(findings))  # noqa: T201 -- the output of the command
    return 0 if is_well(findings) else 1


@cli.command(name="plugin")
def run_as_plugin() -> int:
    """Run the gateway as a plugin that lightningd has started: its settings are options of lightningd."""
    if not is_started_by_node():
        print(  # noqa: T201 -- for a person, or an installer that tests whether this runs
            "This is a plugin of lightningd: write plugin=... in its configuration, or use lightning-cli plugin start."
        )
        return 0
    base = load({})
    logs.configure(base.log_level, "json")
    run(until_signal(lambda stop: gateway.serve_as_plugin(base, stop)))
    return 0


@cli.command
def health(
    *,
    address: Annotated[str, Parameter(help="host:port or unix:/path, without TLS.")] = ADDRESS,
    service: Annotated[
        str, Parameter(help="Empty: only the process. The name of a service: also its node.")
    ] = "",
) -> int:
    """Ask a running gateway for its health; exit with 0 if it serves."""
    said = check(address, service)
    print(said)  # noqa: T201 -- for the person at the terminal
    return int(said != SERVING)


def _with_settings_as_flags(command: Any, *more: inspect.Parameter) -> Any:
    """Give a command one flag for each setting, so that settings are described only once."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *more,
        inspect.Parameter(
            "config", keyword, default=None, annotation=Annotated[Path | None, Parameter(help="A TOML file.")]
        ),
    ]
    for name, field in Settings.model_fields.items():
        text = f"{field.description} [default: {_default(field.default)}]"
        # A value may contain several, separated by commas; the settings split and check them.
        kind: Any = tuple[str, ...] if isinstance(field.default, tuple) else field.annotation
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
if sys.argv[1:2] != ["serve"]:
    for _extension in entry_points(group="custommsg_server.commands"):
        _extension.load()(cli)  # custommsg-testing adds `try` and `devnode`


def _explain(error: CycloptsError) -> str:
    """Return the parser's error in one line."""
    error.verbose = False
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        return f"{name} needs a value." if name.startswith("-") else f"{name} is missing."
    if isinstance(error, UnusedCliTokensError):
        return f"Unexpected argument: {' '.join(error.unused_tokens or [])}."
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in (int, float):
        return f"{error.token.keyword} takes a number, not {error.token.value!r}."
    return " ".join(str(error).split())


def main() -> None:
    """Run the command line; end with its exit status."""
    try:
        status = cli(exit_on_error=False, print_error=False, result_action="return_value")
        sys.exit(status or 0)  # None after --help and --version
    except CycloptsError as error:
        command = " ".join([*cli.name, *(error.command_chain or cli.parse_commands(sys.argv[1:])[0])])
        print(f"custommsg-server: {_explain(error)} Try: {command} --help", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except gateway.PartEndedError:  # it is in the log
        sys.exit(PART_ENDED)
    except UserError as error:
        print(f"custommsg-server: {error}", file=sys.stderr)  # noqa: T201 -- for the person at the terminal
        sys.exit(2)


if __name__ == "__main__":
    main()
