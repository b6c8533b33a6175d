"""Every setting, once: flags > environment (CUSTOMMSG_...) > TOML file > default."""

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

from custommsg_server.access.access import Require
from custommsg_server.access.policy import Policy
from custommsg_server.api.dialects import DIALECTS, Dialect
from custommsg_server.domain.address import Address
from custommsg_server.domain.errors import UserError
from custommsg_server.domain.types import NODES_OWN, TypeSet, parse_range, parse_set

PREFIX: Final = "CUSTOMMSG_"
RELOADABLE: Final = {
    *("log_level", "log_calls"),
    *("peer_messages_per_s", "peer_bytes_per_s", "peer_burst"),
    *("peer_received_messages_per_s", "peer_received_bytes_per_s", "peer_received_burst"),
    *("caller_calls", "caller_messages_per_s", "caller_bytes_per_s"),
}
"""What SIGHUP may change; every other setting needs a restart."""
CLIENT_VARIABLES: Final = {f"{PREFIX}{name}" for name in ("ADDRESS", "CA", "CERT", "KEY", "RUNE")}
"""Variables of the client, which may well be set in the same shell."""
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP).*)?$")
"""What Kubernetes sets for each pod when a Service is called custommsg."""


Types = Annotated[tuple[str, ...], NoDecode]


class SettingsError(UserError):
    """The settings are wrong; the message says which, where from, and why."""


class Settings(BaseSettings):
    """The settings of `custommsg-server serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    listen: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:9737",),
        description="Where to listen: host:port or unix:/path (mode 0600). May be given several times.",
    )
    insecure: bool = Field(
        False,
        description="Let in everybody who reaches an address above: no credential is needed, and no TLS, even where"
        " other machines reach it.",
    )
    require: Require = Field(
        "rune",
        description="What a caller has to show: rune, client-cert, or rune-or-client-cert. A rune that is shown is"
        " always checked. Health checks and reflection need no credential.",
    )
    tls_cert: Path | None = Field(
        None,
        description="The server's certificate (PEM); with it, all TCP connections use TLS. Read again when it changes.",
    )
    tls_key: Path | None = Field(None, description="Its key (PEM), without a password.")
    tls_client_ca: Path | None = Field(
        None,
        description="The CA of client certificates (PEM); with it, each TLS client needs a certificate.",
    )
    rune_check_interval: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Seconds after which the node is asked again whether a rune is valid: so late may a withdrawal be."
        " 0: at each use.",
    )
    reflection: bool = Field(True, description="Offer gRPC server reflection.")
    max_connections: int = Field(
        1000,
        ge=1,
        description="Connections at once; more are not accepted. An idle one takes a file and some 15 kB of memory,"
        " with TLS 48 kB, whoever opens it.",
    )
    max_connection_age: float = Field(
        3600.0,
        ge=0,
        description="Seconds after which a client has to open a new TLS connection, with certificates that are valid"
        " then; its streams may go on for 60 s more. 0: never.",
    )
    caller_calls: int = Field(
        1000, ge=0, description="Calls and streams that one caller may have at once; 0: no limit."
    )
    caller_messages_per_s: float = Field(
        0.0, ge=0, description="Messages a second that one caller may send; 0: no limit."
    )
    caller_bytes_per_s: float = Field(
        0.0, ge=0, description="Bytes a second that one caller may send, framing included; 0: no limit."
    )
    memory_budget_mb: int = Field(
        256,
        ge=16,
        description="Megabytes that messages may take on their way to the node and to subscribers, with all that"
        " belongs to them. A caller may hold as much as is left for others; beyond that its streams are held back, and"
        " its calls are refused as OVERLOADED.",
    )
    rpc_file: Path | None = Field(
        None, description="lightningd's JSON-RPC socket. Default: LIGHTNING_DIR/NETWORK/lightning-rpc."
    )
    lightning_dir: Path = Field(
        Path("~/.lightning"), description="lightningd's directory, as for lightning-cli."
    )
    network: str = Field("bitcoin", description="lightningd's network, as for lightning-cli.")
    call_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that a call may take at most, even if its deadline is later.",
    )
    node_window: int = Field(512, ge=1, le=65_536, description="Requests in progress at lightningd at once.")
    node_max_waiting: int = Field(
        8192,
        ge=0,
        le=1_000_000,
        description="Requests that may wait for one of those; more are refused as OVERLOADED.",
    )
    node_probe_interval: float = Field(
        5.0, gt=0, le=300, description="Seconds between two checks whether lightningd answers."
    )
    node_reply_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that lightningd may leave a request unanswered before the"
        " gateway closes the connection to it and opens a new one.",
    )
    peer_messages_per_s: float = Field(
        10_000.0, ge=0, description="Messages a second that one peer may be sent; 0: no limit."
    )
    peer_bytes_per_s: float = Field(
        1_000_000.0,
        ge=0,
        description="Bytes a second that one peer may be sent, framing included; 0: no limit. A Core Lightning"
        " peer reads no faster than the default; the rest would fill the node's memory.",
    )
    peer_burst: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="Seconds' worth of these rates that may be sent at once after a pause.",
    )
    receive: bool = Field(
        True, description="Receive what peers send: have lightningd run the gateway's plugin script."
    )
    receive_types: Types = Field(
        ("0-65535",), description="The types of messages to keep: 37913, 0x9419 or 32768-65535, with commas."
    )
    ignore_types: Types = Field(
        NODES_OWN,
        description="The types not to keep. The default is the node's own traffic: peer storage, and commando,"
        " whose payloads are credentials.",
    )
    accept_even_types: Types = Field(
        (),
        description="Even types that lightningd accepts; it disconnects a peer that sends another one. Written like"
        " receive_types.",
    )
    data_dir: Path | None = Field(
        None, description="The folder of the inbox. Default: custommsg, beside lightningd's JSON-RPC socket."
    )
    plugin_dir: Path | None = Field(
        None,
        description="The folder of the plugin script that lightningd runs, and of its socket. Default: DATA_DIR.",
    )
    plugin_dir_for_node: str | None = Field(
        None,
        description="The same folder as lightningd sees it, if that is another path, as in two containers.",
    )
    inbox_max_days: float = Field(30.0, gt=0, description="Days for which the inbox keeps events.")
    inbox_max_mb: int = Field(
        1024,
        ge=1,
        description="Megabytes that the inbox may hold. Beyond that the oldest events of the peers that have most in it"
        " are deleted; of peers with channels eight times as much is kept.",
    )
    inbox_consumer_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The part of the inbox, about, that may be taken by events that a named consumer has not"
        " acknowledged; only what is beyond that is deleted before what all have read.",
    )
    peer_received_messages_per_s: float = Field(
        2000.0,
        ge=0,
        description="Messages a second that are stored of one peer; what it sends beyond that is refused, and an"
        " interruption of the peer says how many. 0: no limit.",
    )
    peer_received_bytes_per_s: float = Field(
        250_000.0,
        ge=0,
        description="Bytes a second that are stored of one peer, framing included; 0: no limit.",
    )
    peer_received_burst: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="Seconds' worth of these rates that a peer may send at once after a pause.",
    )
    heartbeat: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds after which a subscription without events sends its position.",
    )
    dialects: Annotated[tuple[Dialect, ...], NoDecode] = Field(
        DIALECTS,
        description="Contracts of others to serve beside custommsg.v1, for clients that were written for them: cln"
        " (cln.Node), greenlight (greenlight.Node), lnd (lnrpc.Lightning). An empty value switches all off.",
    )
    lnd_types: Types = Field(
        ("32768-65535",),
        description="The types of messages that lnrpc.Lightning sends and streams. Written like receive_types.",
    )
    drain_time: float = Field(
        20.0, ge=0, le=3600, description="Seconds that calls in progress may take after SIGTERM."
    )
    metrics_listen: str = Field(
        "",
        description="Where to serve metrics for Prometheus: host:port; the URL is http://host:port/metrics. Default:"
        " nowhere.",
    )
    otel_endpoint: str = Field(
        "",
        description="Where to send traces, as OTLP over gRPC: http://127.0.0.1:4317. Needs the extra otel."
        " Default: OTEL_EXPORTER_OTLP_ENDPOINT; without it there are no traces.",
    )
    log_calls: Literal["all", "failures", "none"] = Field(
        "all", description="Which calls are logged, at level info."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged: this level and above."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="The log's format; auto: console on a terminal, json elsewhere."
    )

    @field_validator(
        "listen", "receive_types", "ignore_types", "accept_even_types", "dialects", "lnd_types", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """Cut at commas: the whole value, or each of several that were given."""
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
            raise ValueError(f"{min(odd)} is odd; lightningd accepts odd types anyway")
        return value

    @field_validator(
        "rpc_file", "lightning_dir", "data_dir", "plugin_dir", "tls_cert", "tls_key", "tls_client_ca"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # lightningd runs in another folder: a relative path would mean another place there.
        try:
            return value.expanduser().absolute() if value else None
        except RuntimeError:
            raise ValueError(
                "this user has no home directory, so ~ cannot be expanded; write the whole path"
            ) from None

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        Policy(
            self.addresses, self.require, self.insecure, self.tls_cert, self.tls_key, self.tls_client_ca
        ).check()
        return self

    @property
    def addresses(self) -> list[Address]:
        """Where to listen."""
        return [Address.parse(text) for text in self.listen]

    @property
    def metrics_address(self) -> Address | None:
        """Where metrics are served, if they are."""
        return Address.parse(self.metrics_listen) if self.metrics_listen else None

    @property
    def received_types(self) -> frozenset[int]:
        """The types of messages to keep."""
        return parse_set(self.receive_types) - parse_set(self.ignore_types)

    @property
    def even_types(self) -> frozenset[int]:
        """The even types that lightningd is to accept."""
        return parse_set(self.accept_even_types)

    @property
    def lnd_type_set(self) -> TypeSet:
        """The types of messages that lnrpc.Lightning sends and streams."""
        return TypeSet(map(parse_range, self.lnd_types))

    @property
    def data_path(self) -> Path:
        """Where the inbox is kept."""
        return self.data_dir or self.socket_path.parent / "custommsg"

    @property
    def inbox_path(self) -> Path:
        """The inbox's file."""
        return self.data_path / "inbox.sqlite3"

    @property
    def plugin_path(self) -> Path:
        """Where lightningd finds the script that attaches it, and its socket."""
        return self.plugin_dir or self.data_path

    @property
    def socket_path(self) -> Path:
        """Lightningd's JSON-RPC socket."""
        return self.rpc_file or self.lightning_dir / self.network / "lightning-rpc"


def load(
    flags: Mapping[str, Any], config: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Put the settings together.

    Args:
        flags: what was said on the command line, by setting.
        config: a TOML file with settings by name; `CUSTOMMSG_CONFIG` if None.
        environ: the environment, to look for variables that nobody knows.

    Raises:
        SettingsError: a setting is unknown or wrong.
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
