"""Fixtures."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from support import standin

# The machine decides how long an example takes; the suite has one time limit for all.
hypothesis_settings.register_profile("suite", deadline=None, max_examples=100)
hypothesis_settings.load_profile("suite")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory whose path is short: a unix socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        yield Path(folder)


@pytest.fixture
def rpc_file(short_path: Path) -> Path:
    """Return where a node's socket will be."""
    return short_path / "lightning-rpc"


@pytest.fixture
async def node(rpc_file: Path) -> AsyncIterator[standin.StandIn]:
    """Run a stand-in for lightningd."""
    async with standin.running(rpc_file) as running:
        yield running
