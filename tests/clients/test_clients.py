"""Programs that were written for Core Lightning or Greenlight work against the gateway, unchanged."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.gateways import gateway
from support.keys import node_id

from . import table
from .programs import HERE, Client, running
from .rig import Rig, needs, receive_all, rows, running_rig, send_all, server_certificate

LSPS0 = HERE.parents[1] / "examples/lsps0.py"


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


@needs("pyln_grpc_proto/.venv/.ready")
async def test_pyln_grpc_proto(short_path: Path) -> None:
    """Core Lightning's stubs for Python, over cln.Node."""
    directory = HERE / "pyln_grpc_proto"
    async with running_rig(short_path) as rig:
        program = (directory / ".venv/bin/python", directory / "client.py", rig.address)
        async with running(*program) as client:
            seen = rows("SendCustomMsg", await send_all(client, rig))
            seen += rows("SubscribeCustomMsg", await receive_all(client, rig))
            seen += await questions(client, rig, short_path)
    table.check("pyln-grpc-proto 24.2.1", seen)


async def questions(client: Client, rig: Rig, directory: Path) -> list[tuple[str, str, object]]:
    """Make the calls with which programs begin, and connect to a peer."""
    info, peers = await client.call("info"), await client.call("peers")
    assert info.text == f"{rig.node.alias} {rig.node.id.hex()} 1"
    assert peers.text.startswith(f"{rig.peer.id.hex()} 127.0.0.1:")
    seen: list[tuple[str, str, object]] = [("Getinfo", "", info), ("ListPeers", "", peers)]
    async with devnode.run(directory / "other") as other:
        outcome = await client.call("connect", peer=other.id.hex(), host=str(other.address))
        assert outcome.text == f"{other.id.hex()} OUT 127.0.0.1"
        seen.append(("ConnectPeer", "a node that listens", outcome))
        for case in ("a peer that is connected", "an unknown peer"):
            outcome = await client.call("disconnect", peer=other.id.hex())
            seen.append(("Disconnect", case, outcome))
    outcome = await client.call("connect", peer=node_id().hex(), host="127.0.0.1:1")
    return [*seen, ("ConnectPeer", "an address without a node", outcome)]


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
