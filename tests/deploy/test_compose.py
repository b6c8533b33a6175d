"""The compose file."""

from __future__ import annotations

import json
import re
from typing import Any

from custommsg_server.settings import PREFIX, load
from support.containers import PROJECT
from support.tools import run, tool

from .conftest import render


def compose() -> dict[str, Any]:
    """Return the file as Docker Compose reads it. Compose refuses unknown fields."""
    file = str(PROJECT / "deploy/compose/compose.yaml")
    services: dict[str, Any] = json.loads(
        run(tool("docker-compose"), "-f", file, "config", "--format", "json")
    )
    return services


def test_every_variable_is_a_setting() -> None:
    """The gateway accepts them."""
    env = compose()["services"]["custommsg"]["environment"]
    assert load({name.removeprefix(PREFIX).lower(): value for name, value in env.items()}, environ=env)


def test_only_this_machine_gets_in() -> None:
    """Callers need no credential, so that only callers on this machine may reach it."""
    services = compose()["services"].values()
    published = [port["host_ip"] for service in services for port in service.get("ports", [])]
    assert set(published) == {"127.0.0.1"}


def test_it_runs_the_releases_that_kubernetes_runs() -> None:
    """Only one release of lightningd and bitcoind has been tested."""
    images = {service["image"] for service in compose()["services"].values() if ":" in service["image"]}
    assert images <= set(re.findall(r"image: (\S+)", render("laptop")))
