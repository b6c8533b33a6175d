"""Fixtures: an embedded node with a peer, its runes, and certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from support import nodes
from support.every_rpc import Certificates

MakeRune = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make certificates, once."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def embedded(short_path: Path) -> AsyncIterator[nodes.Node]:
    """Run an embedded node with a peer."""
    async with nodes.embedded(short_path) as node:
        yield node


@pytest.fixture
def make_rune(embedded: nodes.Node) -> MakeRune:
    """Return a function that makes a rune of the node; it takes the restrictions, a list of alternatives each."""

    async def make(*restrictions: list[str]) -> str:
        return str((await embedded.call("createrune", restrictions=list(restrictions)))["rune"])

    return make
