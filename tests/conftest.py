"""Fixtures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from support import standin

# The machine decides how long an example takes; the suite has one time limit for all.
hypothesis_settings.register_profile("suite", deadline=None, max_examples=100)
hypothesis_settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """Give the suite its own home directory: the real one may have a real node in the default place."""
    real = Path.home()
    with tempfile.TemporaryDirectory(prefix="cm-home-") as folder, pytest.MonkeyPatch.context() as patch:
        # What tools keep for all projects stays where it is: nothing of ours is there.
        for name in ("cache", "config"):
            patch.setenv(
                f"XDG_{name.upper()}_HOME", os.environ.get(f"XDG_{name.upper()}_HOME", f"{real}/.{name}")
            )
        patch.setenv("RUSTUP_HOME", os.environ.get("RUSTUP_HOME", f"{real}/.rustup"))  # pip asks for rustc
        patch.setenv("HOME", folder)
        yield Path(folder)


@pytest.fixture(autouse=True)
def nothing_in_home(home: Path) -> Iterator[None]:
    """Fail a test that writes to the home directory."""
    yield
    if made := sorted(home.rglob("*")):
        for path in reversed(made):  # so that only one test fails
            path.rmdir() if path.is_dir() else path.unlink()
        pytest.fail(f"the test made {', '.join(map(str, made))}")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory with a short path: the path of a unix socket may have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        yield Path(folder)


@pytest.fixture
def rpc_file(short_path: Path) -> Path:
    """Return the path of a node's socket."""
    return short_path / "lightning-rpc"


@pytest.fixture
async def node(rpc_file: Path) -> AsyncIterator[standin.StandIn]:
    """Run a stand-in for lightningd."""
    async with standin.running(rpc_file) as running:
        yield running
