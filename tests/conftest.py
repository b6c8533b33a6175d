"""Fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from support import standin

# The machine decides how long an example takes; the suite has one time limit for all.
hypothesis_settings.register_profile("suite", deadline=None, max_examples=100)
hypothesis_settings.load_profile("suite")


@pytest.fixture
def rpc_file(tmp_path: Path) -> Path:
    """Return where a node's socket will be."""
    return tmp_path / "lightning-rpc"


@pytest.fixture
async def node(rpc_file: Path) -> AsyncIterator[standin.StandIn]:
    """Run a stand-in for lightningd."""
    async with standin.running(rpc_file) as running:
        yield running
