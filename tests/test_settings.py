"""Settings: flags > environment > TOML file > default."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg_server.settings import Settings, SettingsError, load


def test_flags_win_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source overrides those after it, setting by setting."""
    config = tmp_path / "custommsg.toml"
    config.write_text('call_timeout = 1\ndrain_time = 1\nnode_window = 1\nlisten = ["127.0.0.1:1"]\n')
    monkeypatch.setenv("CUSTOMMSG_CALL_TIMEOUT", "2")
    monkeypatch.setenv("CUSTOMMSG_DRAIN_TIME", "2")
    settings = load({"call_timeout": 3}, config)
    assert (settings.call_timeout, settings.drain_time, settings.node_window) == (3, 2, 1)
    assert settings.listen == ("127.0.0.1:1",)
    assert settings.node_max_waiting == Settings.model_fields["node_max_waiting"].default


def test_every_setting_has_a_description_in_one_line() -> None:
    """The docstring of a setting is its text in --help and in the docs."""
    descriptions = [field.description or "" for field in Settings.model_fields.values()]
    assert all(descriptions)
    assert not any("\n" in text for text in descriptions)


def test_the_socket_is_found_as_lightning_cli_finds_it() -> None:
    """~/.lightning/bitcoin/lightning-rpc, and each part can be set."""
    assert load({}).socket_path == Path.home() / ".lightning/bitcoin/lightning-rpc"
    given_parts = load({"lightning_dir": "/l", "network": "regtest"})
    assert given_parts.socket_path == Path("/l/regtest/lightning-rpc")
    assert load({"rpc_file": "/r", "network": "regtest"}).socket_path == Path("/r")


def test_several_addresses_may_be_given_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable has no lists, so commas separate."""
    monkeypatch.setenv("CUSTOMMSG_LISTEN", "127.0.0.1:1, unix:/s")
    assert load({}).listen == ("127.0.0.1:1", "unix:/s")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lisen = 1", "lisen"),
        ("call_timeout = -1", "--call-timeout"),
        ("= 1", "not valid TOML"),
        ('listen = "10.0.0.1:1"', "other machines"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    """An unknown key is an error, like an invalid value."""
    config = tmp_path / "custommsg.toml"
    config.write_text(content)
    with pytest.raises(SettingsError, match=said):
        load({}, config)


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """A missing file is not ignored."""
    with pytest.raises(SettingsError, match="No such file"):
        load({}, tmp_path / "missing.toml")


@pytest.mark.parametrize("name", ["CUSTOMMSG_LISTN", "CUSTOMMSG_RPC", "CUSTOMMSG_"])
def test_an_unknown_variable_is_an_error(name: str) -> None:
    """A typo must not silently leave the default."""
    with pytest.raises(SettingsError, match="is not a setting"):
        load({}, environ={name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        "CUSTOMMSG_SERVICE_HOST",
        "CUSTOMMSG_SERVICE_PORT_GRPC",
        "CUSTOMMSG_PORT",
        "CUSTOMMSG_PORT_9737_TCP_ADDR",
    ],
)
def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake(name: str) -> None:
    """Otherwise its service links would stop every gateway in a namespace with a Service named custommsg."""
    load({}, environ={name: "tcp://10.0.0.1:9737"})


@given(st.binary(max_size=60))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """With any content of the file, an error is a SettingsError."""
    config = tmp_path_factory.mktemp("config") / "c.toml"
    config.write_bytes(content)
    try:
        load({}, config)
    except SettingsError as error:
        assert str(error)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lightningd has another working directory."""
    monkeypatch.chdir(tmp_path)
    given = {name: Path("here") for name in ("rpc_file", "lightning_dir", "data_dir", "plugin_dir")}
    settings = load(given, environ={})
    assert {getattr(settings, name) for name in given} == {tmp_path / "here"}
    assert settings.inbox_path.is_absolute()


@pytest.mark.parametrize("given", [("32768,40000",), ("32768", "40000"), "32768, 40000"])
def test_several_values_may_stand_in_one_or_in_many(given: object) -> None:
    """With commas, as in the environment, and as a repeated flag."""
    assert list(load({"accept_even_types": given}, environ={}).even_types) == [32768, 40000]
    with pytest.raises(SettingsError, match="is odd"):
        load({"accept_even_types": ("32768,40001",)}, environ={})
