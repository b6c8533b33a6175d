"""`custommsg-server`: parse the command line, call the app."""

from __future__ import annotations

import os
import sys

# gRPC's C core writes plain text between our structured lines, unless told not to before it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import asyncio
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

from cyclopts import App, Parameter

from custommsg_server import app as gateway
from custommsg_server import logs
from custommsg_server.config import Settings, SettingsError, load
from custommsg_server.rpc.listen import ListenError

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
    settings = load({name: value for name, value in flags.items() if value is not None}, config)
    logs.configure(settings.log_level, settings.log_format)
    asyncio.run(gateway.serve(settings))
    return 0


def _with_settings_as_flags(command: Any) -> Any:
    """Give a command one flag for each setting, so that each is described in one place."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            "config", keyword, default=None, annotation=Annotated[Path | None, Parameter(help="A TOML file.")]
        )
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


cli.command(_with_settings_as_flags(serve), name="serve")


def main() -> None:
    """Run the command line; end with its exit status."""
    try:
        sys.exit(cli())
    except (SettingsError, ListenError) as error:
        print(f"custommsg-server: {error}", file=sys.stderr)  # noqa: T201 -- said to the person at the terminal
        sys.exit(2)


if __name__ == "__main__":
    main()
