"""Programs that were written for other contracts work against the gateway, unchanged."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pyln.client import LightningRpc

from custommsg_server import app
from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.gateways import gateway, settings
from support.keys import NOT_A_POINT, node_id

from . import table
from .programs import HERE, Client, Outcome, running

LARGEST = bytes(range(256)) * 255 + bytes(253)
LSPS0 = HERE.parents[1] / "examples/lsps0.py"
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


@asynccontextmanager
async def lsp(peer: DevNode) -> AsyncIterator[None]:
    """Have the peer answer LSPS0: a gateway on it, and the example program behind that."""
    async with gateway(peer.rpc_file) as address:
        program = await asyncio.create_subprocess_exec(
            sys.executable, LSPS0, "--address", address, "serve", stdout=asyncio.subprocess.PIPE
        )
        try:
            assert program.stdout is not None
            assert await program.stdout.readline() == b"Answering.\n"
            yield
        finally:
            program.terminate()
            await program.communicate()


def device_certificate(directory: Path) -> tuple[Path, Path]:
    """Make what gl-client takes for a device's credentials: a key of P-256, as PKCS 8, and its certificate."""
    device = trustme.CA().issue_cert("localhost")
    key = serialization.load_pem_private_key(device.private_key_pem.bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate_path, key_path = directory / "device.pem", directory / "device-key.pem"
    certificate_path.write_bytes(device.cert_chain_pems[0].bytes())
    key_path.write_bytes(pem)
    return certificate_path, key_path


def server_certificate(directory: Path, name: str) -> dict[str, Path]:
    """Make a certificate for a gateway, and its CA's in ca.pem; return the settings."""
    authority, path = trustme.CA(), directory / "server.pem"
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
    return {"tls_cert": path, "tls_key": path}


def rows(call: str, seen: list[tuple[str, object]]) -> list[tuple[str, str, object]]:
    """Say which call these cases are of."""
    return [(call, case, outcome) for case, outcome in seen]


@needs("pyln_grpc_proto/.venv/.ready")
async def test_pyln_grpc_proto(short_path: Path) -> None:
    """Core Lightning's stubs for Python, over cln.Node."""
    directory = HERE / "pyln_grpc_proto"
    async with running_rig(short_path) as rig:
        program = (directory / ".venv/bin/python", directory / "client.py", rig.address)
        async with running(*program) as client:
            seen = rows("SendCustomMsg", await send_all(client, rig))
            seen += rows("SubscribeCustomMsg", await receive_all(client, rig))
    table.check("pyln-grpc-proto 24.2.1", seen)


@needs("gl_client/.venv/.ready")
async def test_gl_client(short_path: Path) -> None:
    """Greenlight's client, over cln.Node and greenlight.Node; its LspClient speaks LSPS0 to a peer."""
    directory = HERE / "gl_client"
    certificate, key = device_certificate(short_path)
    async with running_rig(short_path, insecure=False) as rig:
        rune = (await rig.node_call("createrune"))["rune"]
        program = (directory / ".venv/bin/python", directory / "client.py", f"http://{rig.address}")
        async with running(*program, certificate, key, rune) as client:
            seen = rows("`send_custommsg`", await send_all(client, rig))
            seen += rows("`stream_custommsg`", await receive_all(client, rig))
            async with lsp(rig.peer):
                outcome = await client.call("list_protocols", peer=rig.peer.id.hex())
            assert (outcome.code, outcome.text) == ("OK", "[1, 2]")
            seen.append(("`LspClient.list_protocols`", "answered by the peer over LSPS0", outcome))
    table.check("gl-client 0.3.4", seen)


@needs("gl_client/.venv/.ready")
async def test_gl_client_over_tls(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an https:// address, as docs/dialects.md says."""
    directory = HERE / "gl_client"
    certificate, key = device_certificate(short_path)
    monkeypatch.setenv("GL_CA_CRT", str(short_path / "ca.pem"))
    async with running_rig(short_path, insecure=False, **server_certificate(short_path, "localhost")) as rig:
        rune = (await rig.node_call("createrune"))["rune"]
        program = (directory / ".venv/bin/python", directory / "client.py", f"https://{rig.address}")
        async with running(*program, certificate, key, rune) as client:
            outcome = await client.call("send", peer=rig.peer.id.hex(), message="9419cafe")
            assert outcome.code == "OK"
        assert (await rig.peer.next_message()).payload == b"\xca\xfe"


@needs("lightning/node_modules/.ready")
async def test_lightning(short_path: Path) -> None:
    """The npm package `lightning`, over lnrpc.Lightning; it takes TLS for granted, and a rune for a macaroon."""
    async with running_rig(short_path, insecure=False, **server_certificate(short_path, "127.0.0.1")) as rig:
        rune = (await rig.node_call("createrune"))["rune"]
        program = ("node", HERE / "lightning/client.mjs", rig.address, short_path / "ca.pem", rune)
        async with running(*program) as client:
            seen = rows("`sendMessageToPeer`", await send_all(client, rig))
            seen += rows("`subscribeToPeerMessages`", await receive_all(client, rig))
            seen += await start_up(client, rig, short_path)
        async with running(*program[:-1], "bm8gcnVuZQ==") as stranger:
            seen.append(("`getWalletInfo`", "with an invalid rune", await stranger.call("info")))
    table.check("lightning 12.5.0 (npm)", seen)


async def start_up(client: Client, rig: Rig, directory: Path) -> list[tuple[str, str, object]]:
    """Make the calls with which programs on this client begin."""
    info, peers = await client.call("info"), await client.call("peers")
    assert info.text == f"{rig.node.alias} {rig.node.id.hex()} 1"
    assert peers.text == rig.peer.id.hex()
    seen: list[tuple[str, str, object]] = [("`getWalletInfo`", "", info), ("`getPeers`", "", peers)]
    async with devnode.run(directory / "other") as other:
        for case, node_id_, host in (
            ("a node that listens", other.id, other.address),
            ("a peer that is connected", rig.peer.id, rig.peer.address),
            ("the node itself", rig.node.id, rig.node.address),
            ("an address without a node", node_id(), "127.0.0.1:1"),
        ):
            outcome = await client.call("connect", peer=node_id_.hex(), host=str(host))
            seen.append(("`addPeer`", case, outcome))
        await other.until_connected(rig.node.id)
    return seen
