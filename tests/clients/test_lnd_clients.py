"""Programs that were written for LND work against the gateway, unchanged."""

from __future__ import annotations

from pathlib import Path

from . import lnd
from .programs import HERE
from .rig import needs

LIGHTNING = {
    "send": "`sendMessageToPeer`",
    "subscribe": "`subscribeToPeerMessages`",
    "events": "`subscribeToPeers`",
    "info": "`getWalletInfo`",
    "peers": "`getPeers`",
    "connect": "`addPeer`",
    "disconnect": "`removePeer`",
    "node": "`getNode`",
    "version": "`getWalletVersion`",
    "state": "`getWalletStatus`",
    "channels": "`getChannels`",
    "foreign": "",
}
METHODS = {
    "send": "SendCustomMessage",
    "subscribe": "SubscribeCustomMessages",
    "events": "SubscribePeerEvents",
    "info": "GetInfo",
    "peers": "ListPeers",
    "connect": "ConnectPeer",
    "disconnect": "DisconnectPeer",
    "node": "GetNodeInfo",
    "version": "GetVersion",
    "state": "GetState",
    "channels": "ListChannels",
    "foreign": "",
}


@needs("lightning/node_modules/.ready")
async def test_lightning(short_path: Path) -> None:
    """The npm package `lightning`, on which bos and others are built."""
    program = ("node", HERE / "lightning/client.mjs")
    await lnd.check("lightning 12.5.0 (npm)", short_path, program, LIGHTNING, hex_digits=True)


@needs("ln_service/node_modules/.ready")
async def test_ln_service(short_path: Path) -> None:
    """The npm package `ln-service`."""
    program = ("node", HERE / "ln_service/client.mjs")
    await lnd.check("ln-service 59.3.1 (npm)", short_path, program, LIGHTNING, hex_digits=True)


@needs("lnd_api/node_modules/.ready")
async def test_lnd_api(short_path: Path) -> None:
    """The npm package `@lightningpolar/lnd-api`, Polar's."""
    program = ("node", HERE / "lnd_api/client.mjs")
    await lnd.check("lnd-api 0.20.0-beta (npm)", short_path, program, METHODS, hex_digits=True)


@needs("lnd_grpc_client/.venv/.ready")
async def test_lnd_grpc_client(short_path: Path) -> None:
    """The PyPI package lnd-grpc-client."""
    program = (HERE / "lnd_grpc_client/.venv/bin/python", HERE / "lnd_grpc_client/client.py")
    await lnd.check("lnd-grpc-client 0.6.0", short_path, program, METHODS, hex_digits=False)


@needs("lndgrpc/.venv/.ready")
async def test_lndgrpc(short_path: Path) -> None:
    """The PyPI package lndgrpc; its stubs are older than custom messages."""
    program = (HERE / "lndgrpc/.venv/bin/python", HERE / "lnd_grpc_client/client.py")
    known = ("info", "peers", "connect", "disconnect", "node", "channels", "foreign")
    calls = {call: METHODS[call] for call in known}
    await lnd.check("lndgrpc 0.2.0", short_path, program, calls, hex_digits=False)
