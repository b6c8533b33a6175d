"""The gateway does not start with settings that would let in callers by mistake."""

from __future__ import annotations

from typing import Any

import pytest

from custommsg_server.settings import SettingsError, load

TLS = {"tls_cert": "/c", "tls_key": "/k"}
ANYWHERE = {"listen": ("0.0.0.0:9737",)}
UNIX = {"listen": ("unix:/s",)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        UNIX,
        {"insecure": True},
        ANYWHERE | {"insecure": True},
        ANYWHERE | TLS,
        ANYWHERE | TLS | {"tls_client_ca": "/a", "require": "client-cert"},
        UNIX | TLS | {"tls_client_ca": "/a", "require": "rune-or-client-cert"},
    ],
)
def test_what_is_safe_starts(settings: dict[str, Any]) -> None:
    """By default a rune is required; anything else has to be set explicitly."""
    assert load(settings, environ={}).require in ("rune", "client-cert", "rune-or-client-cert")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ANYWHERE, "--insecure"),
        (ANYWHERE, "tls_cert"),
        ({"tls_cert": "/c"}, "set together"),
        ({"tls_client_ca": "/a"}, "needs tls_cert"),
        ({"require": "client-cert"}, "needs tls_client_ca"),
        (UNIX | TLS | {"tls_client_ca": "/a", "require": "client-cert"}, "rune-or-client-cert"),
        ({"require": "nothing"}, "require"),
    ],
)
def test_what_is_not_safe_is_refused_with_the_setting_that_would_allow_it(
    settings: dict[str, Any], said: str
) -> None:
    """The error says what to set."""
    with pytest.raises(SettingsError, match=said):
        load(settings, environ={})
