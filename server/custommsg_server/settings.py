"""Every setting is described here once. Precedence: flag, environment (CUSTOMMSG_...), TOML file, default."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from custommsg_server.access import policy
from custommsg_server.access.access import Require
from custommsg_server.api.dialects import DIALECTS, Dialect
from custommsg_server.domain.address import Address
from custommsg_server.domain.errors import UserError
from custommsg_server.domain.types import NODES_OWN, TypeSet, parse_set

PREFIX: Final = "CUSTOMMSG_"
RELOADABLE: Final = {
    *("log_level", "log_calls"),
    *("peer_messages_per_s", "peer_bytes_per_s", "peer_burst"),
    *("peer_received_messages_per_s", "peer_received_bytes_per_s", "peer_received_burst"),
    *("caller_calls", "caller_messages_per_s", "caller_bytes_per_s"),
    *("outbox_peer_entries", "outbox_peer_mb", "outbox_caller_entries", "outbox_caller_mb"),
    *("outbox_keep_hours", "outbox_keep_entries"),
    *("rune_check_interval", "memory_budget_mb"),
}
"""Settings that SIGHUP applies; all others need a restart."""
CLIENT_VARIABLES: Final = {f"{PREFIX}{name}" for name in ("ADDRESS", "CA", "CERT", "KEY", "RUNE")}
"""Variables of the client, which may be set in the same shell."""
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP).*)?$")
"""Variables that Kubernetes sets in each pod when there is a Service named custommsg."""


Texts = Annotated[tuple[str, ...], NoDecode]
Types = Texts
NotNegative = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class SettingsError(UserError):
    """A setting is invalid; the message says which one, and why."""


class Settings(BaseSettings):
    """The settings of `custommsg-server serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    listen: Texts = ("127.0.0.1:9737",)
    """Where to listen: host:port or unix:/path (mode 0600). May be given several times."""
    insecure: bool = False
    """Accept calls without a credential, and allow addresses that other machines reach without TLS."""
    require: Require = "rune"
    """The credential that callers need: rune, client-cert, or rune-or-client-cert. A rune in a call is always
    checked. Health checks and reflection need no credential."""
    tls_cert: Path | None = None
    """The server's certificate (PEM file); if set, TCP addresses use TLS. Read again when it changes."""
    tls_key: Path | None = None
    """The key of the certificate (PEM file), without a password."""
    tls_client_ca: Path | None = None
    """The CA of client certificates (PEM file); if set, each TLS client needs a certificate."""
    rune_check_interval: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """Seconds after which the node is asked again whether a rune is valid. A blacklisted rune may be accepted for
    so long. 0: ask at each use."""
    reflection: bool = True
    """Offer gRPC server reflection."""
    max_connections: Annotated[int, Field(ge=1)] = 1000
    """The maximum number of connections. An idle connection takes a file descriptor and about 15 kB of memory, with
    TLS 48 kB."""
    max_connection_age: NotNegative = 3600.0
    """Seconds after which a client has to open a new TLS connection, so that its certificate is checked again. Its
    streams may continue for 60 s more. 0: never."""
    caller_calls: Annotated[int, Field(ge=0)] = 1000
    """Calls and streams in progress of one caller; 0: no limit."""
    caller_messages_per_s: NotNegative = 0.0
    """Messages a second that one caller may send; 0: no limit."""
    caller_bytes_per_s: NotNegative = 0.0
    """Bytes a second that one caller may send, framing included; 0: no limit."""
    memory_budget_mb: Annotated[int, Field(ge=16)] = 256
    """Megabytes of memory for messages to the node and events to subscribers. A caller may use as much as is left
    for all others; above that, its streams are slowed down and its calls fail with OVERLOADED."""
    rpc_file: Path | None = None
    """lightningd's JSON-RPC socket. Default: LIGHTNING_DIR/NETWORK/lightning-rpc."""
    lightning_dir: Path = Path("~/.lightning")
    """lightningd's directory, as for lightning-cli."""
    network: str = "bitcoin"
    """lightningd's network, as for lightning-cli."""
    call_timeout: Seconds = 30.0
    """The maximum duration of a unary call in seconds, even if its deadline is later."""
    node_window: Annotated[int, Field(ge=1, le=65_536)] = 512
    """The maximum number of requests in flight to lightningd."""
    node_max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 8192
    """The maximum number of requests that wait for lightningd; more calls fail with OVERLOADED."""
    node_probe_interval: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Seconds between two checks that lightningd answers."""
    node_reply_timeout: Seconds = 30.0
    """Seconds to wait for lightningd's reply to a request. Then the gateway closes the connection to lightningd and
    opens a new one."""
    peer_messages_per_s: NotNegative = 10_000.0
    """Messages a second to one peer; 0: no limit."""
    peer_bytes_per_s: NotNegative = 1_000_000.0
    """Bytes a second to one peer, framing included; 0: no limit. A Core Lightning peer reads no faster than the
    default, and the rest would fill the node's memory."""
    peer_burst: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """The burst after a pause, in seconds of the rates of peers and callers."""
    receive: bool = True
    """Receive messages: have lightningd run the gateway's plugin script."""
    receive_types: Types = ("0-65535",)
    """The types of messages to store: 37913, 0x9419 or 32768-65535, separated by commas."""
    ignore_types: Types = NODES_OWN
    """The types not to store. The default is traffic of the node itself: peer storage, and commando, whose payloads
    contain credentials."""
    accept_even_types: Types = ()
    """Even types that lightningd shall accept; it disconnects a peer that sends any other even type. Written like
    receive_types."""
    data_dir: Path | None = None
    """The folder of inbox and outbox. Default: custommsg, beside lightningd's JSON-RPC socket."""
    plugin_dir: Path | None = None
    """The folder of the plugin script for lightningd and of its socket. Default: DATA_DIR."""
    plugin_dir_for_node: str | None = None
    """The path of the same folder for lightningd, if it differs, e.g. in another container."""
    inbox_max_days: Annotated[float, Field(gt=0)] = 30.0
    """Days for which the inbox keeps events."""
    inbox_max_mb: Annotated[int, Field(ge=1)] = 1024
    """The maximum size of the inbox in megabytes. Above that the oldest events of the peers that have most in it
    are deleted; peers with channels may have eight times as much as others."""
    inbox_consumer_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The approximate part of the inbox for events that a named consumer has not acknowledged. They are deleted
    last, unless they take more than this part."""
    peer_received_messages_per_s: NotNegative = 2000.0
    """Messages a second from one peer that are stored. More are refused, and an interruption of the peer has their
    number. 0: no limit."""
    peer_received_bytes_per_s: NotNegative = 250_000.0
    """Bytes a second from one peer that are stored, framing included; 0: no limit."""
    peer_received_burst: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """The burst that a peer may send after a pause, in seconds of these rates."""
    outbox_expiry_hours: Annotated[float, Field(gt=0, le=876_000)] = 72.0
    """Hours after which a message in the outbox expires whose caller gives no expiry."""
    outbox_max_expiry_hours: Annotated[float, Field(gt=0, le=876_000)] = 720.0
    """The latest expiry that a caller may give, in hours."""
    outbox_peer_entries: Annotated[int, Field(ge=1)] = 10_000
    """Messages of one caller that may wait for one peer in the outbox."""
    outbox_peer_mb: Annotated[int, Field(ge=1)] = 64
    """Megabytes of messages of one caller that may wait for one peer."""
    outbox_caller_entries: Annotated[int, Field(ge=1)] = 1_000_000
    """Messages of one caller that may wait in the outbox."""
    outbox_caller_mb: Annotated[int, Field(ge=1)] = 1024
    """Megabytes of messages of one caller that may wait in the outbox."""
    outbox_keep_hours: Annotated[float, Field(gt=0)] = 24.0
    """Hours for which idempotency keys are kept, and outbox entries that have ended."""
    outbox_keep_entries: Annotated[int, Field(ge=1)] = 100_000
    """Entries of one caller that are kept after they have ended; of more, the oldest are deleted, with their
    idempotency keys."""
    heartbeat: Seconds = 10.0
    """Seconds without events after which a subscription sends its position."""
    dialects: Annotated[tuple[Dialect, ...], NoDecode] = DIALECTS
    """Other contracts to serve, for clients that were written for them: cln (cln.Node), greenlight
    (greenlight.Node), lnd (lnrpc.Lightning). An empty value switches all off."""
    lnd_types: Types = ("32768-65535",)
    """The types of messages that lnrpc.Lightning sends and streams. Written like receive_types."""
    drain_time: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """Seconds that calls in progress have to finish after SIGTERM."""
    metrics_listen: str = ""
    """Where to serve metrics for Prometheus: host:port; the URL is http://host:port/metrics. Empty: no metrics."""
    otel_endpoint: str = ""
    """Where to send traces, as OTLP over gRPC: http://127.0.0.1:4317. Needs the extra otel. Default:
    OTEL_EXPORTER_OTLP_ENDPOINT. If neither is set, there are no traces."""
    log_calls: Literal["all", "failures", "none"] = "all"
    """Which calls are logged, at level info."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """The format of the log. auto: console on a terminal, otherwise json."""

    @field_validator(
        "listen", "receive_types", "ignore_types", "accept_even_types", "dialects", "lnd_types", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """Split at commas: the value, or each of several values."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return value
        return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())

    @field_validator("metrics_listen")
    @classmethod
    def _metrics_address(cls, value: str) -> str:
        if value and Address.parse(value).path is not None:
            raise ValueError(f"{value!r} is not an address for metrics; write host:port")
        return value

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Address.parse(text)
        return value

    @field_validator("receive_types", "ignore_types", "accept_even_types", "lnd_types")
    @classmethod
    def _types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_set(value)
        return value

    @field_validator("accept_even_types")
    @classmethod
    def _even(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if odd := [number for number in parse_set(value) if number % 2]:
            raise ValueError(f"{min(odd)} is odd; remove it, since lightningd accepts all odd types")
        return value

    @field_validator(
        "rpc_file", "lightning_dir", "data_dir", "plugin_dir", "tls_cert", "tls_key", "tls_client_ca"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # lightningd has another working directory, so a relative path would be wrong there.
        try:
            return value.expanduser().absolute() if value else None
        except RuntimeError:
            raise ValueError(
                "this user has no home directory, so ~ cannot be expanded; write the whole path"
            ) from None

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        policy.check(
            self.addresses, self.require, self.insecure, self.tls_cert, self.tls_key, self.tls_client_ca
        )
        return self

    @property
    def addresses(self) -> list[Address]:
        """Where to listen."""
        return [Address.parse(text) for text in self.listen]

    @property
    def metrics_address(self) -> Address | None:
        """Where metrics are served; None: nowhere."""
        return Address.parse(self.metrics_listen) if self.metrics_listen else None

    @property
    def received_types(self) -> TypeSet:
        """The types of messages to keep."""
        return parse_set(self.receive_types) - parse_set(self.ignore_types)

    @property
    def even_types(self) -> TypeSet:
        """The even types that lightningd is to accept."""
        return parse_set(self.accept_even_types)

    @property
    def lnd_type_set(self) -> TypeSet:
        """The types of messages that lnrpc.Lightning sends and streams."""
        return parse_set(self.lnd_types)

    @property
    def data_path(self) -> Path:
        """The folder of the inbox."""
        return self.data_dir or self.socket_path.parent / "custommsg"

    @property
    def inbox_path(self) -> Path:
        """The inbox's file."""
        return self.data_path / "inbox.sqlite3"

    @property
    def outbox_path(self) -> Path:
        """The outbox's file."""
        return self.data_path / "outbox.sqlite3"

    @property
    def plugin_path(self) -> Path:
        """The folder of the plugin script for lightningd, and of its socket."""
        return self.plugin_dir or self.data_path

    @property
    def socket_path(self) -> Path:
        """Lightningd's JSON-RPC socket."""
        return self.rpc_file or self.lightning_dir / self.network / "lightning-rpc"


for _field in Settings.model_fields.values():
    _field.description = " ".join(
        (_field.description or "").split()
    )  # without line breaks, for --help and docs


def load(
    flags: Mapping[str, Any], config: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read the settings.

    Args:
        flags: the values from the command line, by setting.
        config: a TOML file with settings by name; `CUSTOMMSG_CONFIG` if None.
        environ: the environment, to find unknown variables.

    Raises:
        SettingsError: a setting is unknown or invalid.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES | {f"{PREFIX}CONFIG"}
    for name in environ:
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.search(name):
            raise SettingsError(
                f"The environment variable {name} is not a setting. See custommsg-server serve --help."
            )
    if config is None and environ.get(f"{PREFIX}CONFIG"):
        config = Path(environ[f"{PREFIX}CONFIG"])
    from_file = _read_toml(config) if config else {}

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return Sourced(**flags)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_describe, error.errors()))) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"Cannot read the settings in {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings in {path} are not valid TOML: {error}.") from None
    for key in content:
        if key not in Settings.model_fields:
            raise SettingsError(f"{key} in {path} is not a setting. See custommsg-server serve --help.")
    return content


def _describe(error: Mapping[str, Any]) -> str:
    name = ".".join(map(str, error["loc"][:1]))
    what = str(error["msg"]).removeprefix("Value error, ")
    flag = f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}): " if name else ""
    return f"{flag}{what}."
