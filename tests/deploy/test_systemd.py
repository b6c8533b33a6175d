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
"""The most that is allowed of the exposure that systemd reckons, of 0 to 100; a plain service has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit, with a program that is here: systemd looks whether it is."""
    copy = tmp_path / "custommsg.service"
    text = (FOLDER / "custommsg.service").read_text()
    assert "ExecStart=/opt/custommsg/bin/custommsg-server " in text
    copy.write_text(text.replace("/opt/custommsg/bin/custommsg-server", "/bin/true"))
    return copy


def test_systemd_understands_every_line(unit: Path) -> None:
    """It only warns of a directive that it does not know, and passes over it."""
    assert run_and_hear(tool("systemd-analyze", "it comes with systemd"), "verify", str(unit)) == ""


def test_it_is_hardened(unit: Path) -> None:
    """By systemd's own reckoning."""
    run(
        tool("systemd-analyze", "it comes with systemd"),
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE}",
        str(unit),
    )


def test_the_settings_that_come_with_it_are_settings() -> None:
    """And they are safe together."""
    assert load(tomllib.loads((FOLDER / "custommsg.toml").read_text()), environ={})
