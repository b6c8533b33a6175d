"""Two nodes, and clients of the first one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.devnode_wire import RawRpc, raw_rpc


@pytest.fixture
async def alice(tmp_path: Path) -> AsyncIterator[DevNode]:
    """Run a node."""
    async with devnode.run(tmp_path / "alice") as node:
        yield node


@pytest.fixture
async def bob(tmp_path: Path) -> AsyncIterator[DevNode]:
    """Run another node."""
    async with devnode.run(tmp_path / "bob") as node:
        yield node


@pytest.fixture
async def rpc(alice: DevNode) -> AsyncIterator[RawRpc]:
    """Connect to alice's RPC."""
    async with raw_rpc(alice.rpc_file) as client:
        yield client
