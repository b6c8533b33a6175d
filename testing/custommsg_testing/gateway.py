"""A gateway on an embedded node that has one peer, which is an embedded node, too; all in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from custommsg_server import app
from custommsg_server.settings import load
from custommsg_testing import devnode


@dataclass(frozen=True, slots=True)
class GatewayWithPeer:
    """A running gateway, its node, and the peer that is connected to the node."""

    address: str
    node: devnode.DevNode
    peer: devnode.DevNode


@asynccontextmanager
async def run(
    directory: Path,
    listen: str = "127.0.0.1:0",
    *,
    on_message: devnode.OnMessage | None = None,
    keep_peer: bool = False,
    strict: bool = True,
) -> AsyncIterator[GatewayWithPeer]:
    """Run a gateway without access control, its node and the node's peer, for as long as the context lasts.

    Args:
        directory: where the nodes keep their keys, and the gateway its inbox.
        listen: where the gateway listens; with port 0, the system chooses a free port.
        on_message: called with the peer and each message that reaches it.
        keep_peer: the peer connects again whenever it is disconnected.
        strict: as of `devnode.run`, for both nodes.

    Raises:
        WouldHaveDiedError: see `strict`.
        ListenError: the gateway cannot listen there.
    """
    async with (
        devnode.run(directory / "node", strict=strict) as node,
        devnode.run(directory / "peer", on_message=on_message, strict=strict) as peer,
        app.running(
            load({"listen": (listen,), "insecure": True, "rpc_file": node.rpc_file}, environ={})
        ) as gateway,
    ):
        await peer.connect(node, keep=keep_peer)
        await gateway.ready()
        yield GatewayWithPeer(str(gateway.addresses[0]), node, peer)
