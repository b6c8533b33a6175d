"""The clients send their runes and certificates."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import custommsg
from custommsg._credentials import checked_rune
from custommsg_server.access import certs
from support import nodes
from support.gateways import gateway

from .conftest import MakeRune


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Make certificates as `custommsg-server certs` does."""
    return {path.name: path for path in certs.make(tmp_path / "certs", ["localhost", "127.0.0.1"], "shop")}


def server(files: dict[str, Path]) -> dict[str, Any]:
    """Return a gateway's settings with client certificates and runes."""
    return {
        "insecure": False,
        "require": "client-cert",
        "tls_cert": files["server.pem"],
        "tls_key": files["server.key"],
        "tls_client_ca": files["ca.pem"],
    }


def client(files: dict[str, Path]) -> dict[str, Any]:
    """Return a client's arguments."""
    return {"ca": files["ca.pem"], "cert": files["client.pem"], "key": files["client.key"]}


async def test_both_clients_send_and_receive_with_rune_and_certificate(
    embedded: nodes.Node, make_rune: MakeRune, files: dict[str, Path]
) -> None:
    """A rune restricts them, even if they have a certificate."""
    rune = await make_rune(["pnamemsg^9419"])
    shown = client(files) | {"rune": rune + "\n"}
    async with gateway(embedded.rpc_file, **server(files)) as address:
        async with custommsg.aio.connect(address, **client(files)) as wide:
            while not (await wide.inbox()).attached:
                pass
        async with custommsg.aio.connect(address, **shown) as aio:
            subscription = aio.subscribe(types=[0x9419])
            await aio.send(embedded.peer.id, type=0x9419, payload=b"1")
            with pytest.raises(custommsg.NotPermitted, match="does not start with 9419"):
                await aio.send(embedded.peer.id, type=0x7779, payload=b"1")
            registered = asyncio.ensure_future(anext(subscription))
            while not registered.done():
                await embedded.peer.send(embedded.id, b"\x94\x19hi")
                await asyncio.wait({registered}, timeout=0.1)
            assert registered.result().payload == b"hi"
            await subscription.close()

        def blocking() -> None:
            with custommsg.sync.connect(address, **shown) as sync:
                sync.send(embedded.peer.id, type=0x9419, payload=b"2")
                with pytest.raises(custommsg.NotPermitted):
                    sync.peers()

        await asyncio.to_thread(blocking)


async def test_the_command_takes_them_from_its_environment(
    embedded: nodes.Node, make_rune: MakeRune, files: dict[str, Path]
) -> None:
    """Every user of the machine could see a rune in a flag."""
    async with gateway(embedded.rpc_file, **server(files)) as address:
        names = {f"CUSTOMMSG_{name.upper()}": str(path) for name, path in client(files).items()}
        environ = names | {
            "CUSTOMMSG_ADDRESS": address,
            "CUSTOMMSG_RUNE": await make_rune(["method=getinfo"]),
        }
        outcomes = {}
        for command in ("info", "peers"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "custommsg_cli", command, "--json"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environ,
            )
            out, err = await process.communicate()
            outcomes[command] = process.returncode
            assert json.loads(out or err)
        assert outcomes == {"info": 0, "peers": 64 + 7}


@pytest.mark.parametrize("rune", ["", "two words", "é", "a\nb"])
def test_an_invalid_rune_is_refused_without_being_quoted(rune: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="the rune is invalid") as refused:
        checked_rune(rune)
    assert not rune or rune not in str(refused.value)


async def test_half_a_pair_is_refused(files: dict[str, Path]) -> None:
    """A certificate needs its key."""
    with pytest.raises(ValueError, match="belong together"):
        custommsg.aio.connect(cert=files["client.pem"])
