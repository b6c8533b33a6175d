"""The systemd unit."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from custommsg_server.settings import load
from support.containers import PROJECT
from support.tools import run, run_and_hear, tool

FOLDER = PROJECT / "deploy/systemd"
EXPOSURE = 20
"""The highest exposure that `systemd-analyze security` may find, of 0 to 100. A plain service has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit with a program that exists here, because systemd checks that."""
    copy = tmp_path / "custommsg.service"
    text = (FOLDER / "custommsg.service").read_text()
    assert "ExecStart=/opt/custommsg/bin/custommsg-server " in text
    copy.write_text(text.replace("/opt/custommsg/bin/custommsg-server", "/bin/true"))
    return copy


def test_systemd_understands_every_line(unit: Path) -> None:
    """systemd only warns about unknown directives, and ignores them."""
    assert run_and_hear(tool("systemd-analyze", "it comes with systemd"), "verify", str(unit)) == ""


def test_it_is_hardened(unit: Path) -> None:
    """As `systemd-analyze security` judges it."""
    run(
        tool("systemd-analyze", "it comes with systemd"),
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE}",
        str(unit),
    )


def test_the_settings_that_come_with_it_are_settings() -> None:
    """And together they are safe."""
    assert load(tomllib.loads((FOLDER / "custommsg.toml").read_text()), environ={})
