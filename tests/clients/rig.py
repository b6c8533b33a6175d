"""What the tests of all clients share: a gateway on a node with a peer, and what is sent and received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
from pyln.client import LightningRpc

from custommsg_server import app
from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.gateways import settings
from support.keys import NOT_A_POINT, node_id

from .programs import HERE, Client, Outcome

LARGEST = bytes(range(256)) * 255 + bytes(253)
assert len(LARGEST) == 65_533
PROBE = b"\x9c\x41"
"""A message that only asks whether a subscription is there."""


def needs(path: str) -> Any:
    """Skip where a client is not set up."""
    return pytest.mark.skipif(not (HERE / path).exists(), reason="needs this client: run `make test-clients`")


@dataclass(frozen=True)
class Rig:
    """A gateway on an embedded node, and a peer."""

    node: DevNode
    peer: DevNode
    address: str

    async def node_call(self, method: str, **params: Any) -> Any:
        """Make a JSON-RPC call to the node, as lightning-cli does."""
        return await asyncio.to_thread(LightningRpc(str(self.node.rpc_file)).call, method, params)


@asynccontextmanager
async def running_rig(directory: Path, **more: Any) -> AsyncIterator[Rig]:
    """Run the rig."""
    async with (
        devnode.run(directory / "node") as node,
        devnode.run(directory / "peer", even_types={32768}) as peer,
        app.running(settings(node.rpc_file, accept_even_types=("32768",), **more)) as gateway,
    ):
        await peer.connect(node)
        await gateway.ready()
        yield Rig(node, peer, str(gateway.addresses[0]))


SENDS: list[tuple[str, bytes | None, bytes]] = [
    ("37913 to a connected peer", None, b"\x94\x19\xca\xfe"),
    ("32768, an even type", None, b"\x80\x00\x01"),
    ("65535 with 65,533 bytes", None, b"\xff\xff" + LARGEST),
    ("65,534 bytes after the type", None, b"\xff\xff" + LARGEST + b"\x00"),
    ("to an unknown peer", node_id(), b"\x94\x19\xca\xfe"),
    ("to an id that is not on the curve", NOT_A_POINT, b"\x94\x19\xca\xfe"),
    ("18 (ping), an internal type", None, b"\x00\x12\x00"),
]
ARRIVALS = [b"\x94\x19\xca\xfe", b"\x80\x00\x01", b"\xff\xff" + LARGEST]


async def send_all(client: Client, rig: Rig) -> list[tuple[str, object]]:
    """Have a client send each kind of message; what is said to be sent must be what the peer gets."""
    seen: list[tuple[str, object]] = []
    for case, peer, message in SENDS:
        outcome = await client.call("send", peer=(peer or rig.peer.id).hex(), message=message.hex())
        if outcome.code == "OK" and (await rig.peer.next_message()).message != message:
            pytest.fail(f"{case}: something else arrived")
        seen.append((case, outcome))
    return seen


async def receive_all(client: Client, rig: Rig) -> list[tuple[str, object]]:
    """Have the peer send each kind of message; the client must get the same bytes, in order."""
    await client.call("subscribe")
    for number in count():
        # The client does not tell when it is registered; but what comes after the first that it gets, it gets.
        await rig.peer.send(rig.node.id, PROBE + number.to_bytes(2, "big"))
        try:
            await client.event(timeout=0.2)
            break
        except TimeoutError:
            assert number < 100, "nothing is received"
    for message in ARRIVALS:
        await rig.peer.send(rig.node.id, message)
    got: list[bytes] = []
    while len(got) < len(ARRIVALS):
        peer, message = await client.event()
        assert peer == rig.peer.id
        if not message.startswith(PROBE):
            got.append(message)
    if got != ARRIVALS:
        pytest.fail("something else arrived")
    return [("37913, 32768, 65535 with 65,533 bytes", Outcome("OK"))]


def server_certificate(directory: Path, name: str) -> dict[str, Path]:
    """Make a certificate for a gateway, and its CA's in ca.pem; return the settings."""
    authority, path = trustme.CA(), directory / "server.pem"
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
    return {"tls_cert": path, "tls_key": path}


def rows(call: str, seen: list[tuple[str, object]]) -> list[tuple[str, str, object]]:
    """Say which call these cases are of."""
    return [(call, case, outcome) for case, outcome in seen]
