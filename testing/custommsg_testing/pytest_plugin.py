"""Fixtures for pytest: embedded nodes, and a gateway on one. pytest loads this by itself.

They are ready in a fraction of a second, and every test has its own, on ports that were free. They run in a thread of
their own, so that tests of any kind can use them. A test in which something reaches a node that real lightningd would
not have survived, fails at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# Everything else is imported by the fixtures: pytest loads this module in every project in this environment.
if TYPE_CHECKING:
    from custommsg_testing.background import BackgroundLoop, EmbeddedNode, Gateway


@pytest.fixture(scope="session")
def custommsg_loop() -> Iterator[BackgroundLoop]:
    """Run the event loop of all nodes and gateways, in a thread of its own."""
    from custommsg_testing.background import BackgroundLoop

    with BackgroundLoop() as loop:
        yield loop


@pytest.fixture
def embedded_node(custommsg_loop: BackgroundLoop) -> Iterator[EmbeddedNode]:
    """Run an embedded Lightning node: `node.id`, `node.address`, `node.rpc_file`, `node.connect(...)`."""
    from custommsg_testing.background import run_nodes

    with run_nodes(custommsg_loop, 1) as [node]:
        yield node


@pytest.fixture
def node_pair(custommsg_loop: BackgroundLoop) -> Iterator[tuple[EmbeddedNode, EmbeddedNode]]:
    """Run two embedded nodes that are connected: `one.send(other, 40001, b"hello")`, `other.receive()`."""
    from custommsg_testing.background import run_nodes

    with run_nodes(custommsg_loop, 2) as [one, other]:
        one.connect(other)
        yield one, other


@pytest.fixture
def gateway(custommsg_loop: BackgroundLoop) -> Iterator[Gateway]:
    """Run a gateway on an embedded node with a peer: `gateway.address`, `gateway.node`, `gateway.peer`."""
    from custommsg_testing.background import run_gateway

    with run_gateway(custommsg_loop) as running:
        yield running
