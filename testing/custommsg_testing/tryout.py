"""`custommsg-server try`: a gateway on an embedded node with one embedded peer, all in one process."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from custommsg_server import app
from custommsg_server.settings import load
from custommsg_testing import devnode

EXAMPLE_TYPE = 40001


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    address: str
    node_id: str
    peer_id: str


@asynccontextmanager
async def running(listen: str, show: Callable[[devnode.Received], None]) -> AsyncIterator[Stage]:
    """Run a node, a peer that echoes what it gets, and a gateway on the node.

    Args:
        listen: where the gateway listens.
        show: called with each message that reaches the peer.
    """

    async def echo(peer: devnode.DevNode, received: devnode.Received) -> None:
        show(received)
        await peer.send(received.peer_id, received.message)

    with tempfile.TemporaryDirectory(prefix="custommsg-") as folder:
        path = Path(folder)
        async with (
            devnode.run(path / "node", strict=False) as node,
            devnode.run(path / "peer", on_message=echo, strict=False) as peer,
            app.running(
                load({"listen": (listen,), "insecure": True, "rpc_file": node.rpc_file}, environ={})
            ) as gateway,
        ):
            await peer.connect(node)
            await gateway.ready()
            yield Stage(str(gateway.addresses[0]), node.id.hex(), peer.id.hex())


async def try_out(listen: str, as_json: bool, stop: asyncio.Event) -> None:
    """Run until `stop`; print what to type in another shell, then each message as it reaches the peer."""

    def show(received: devnode.Received) -> None:
        _print({"type": received.type, "payload": received.payload.hex()} if as_json else _line(received))

    async with running(listen, show) as stage:
        if as_json:
            _print({"address": stage.address, "node_id": stage.node_id, "peer_id": stage.peer_id})
        else:
            _print(_welcome(stage))
        await stop.wait()


def _line(received: devnode.Received) -> str:
    payload = received.payload
    text = payload.decode(errors="replace") if payload.isascii() else ""
    preview = repr(text)[1:-1][:60] if text else payload[:30].hex()
    return f"peer received  type {received.type}  {len(payload):,} bytes  {preview}"


def _welcome(stage: Stage) -> str:
    message = f"{EXAMPLE_TYPE:04x}" + b"hello".hex()
    request = json.dumps({"node_id_hex": stage.peer_id, "msg_hex": message})
    here = "" if stage.address == "127.0.0.1:9737" else f" --address {stage.address}"
    return f"""
A gateway listens on {stage.address}, without any access control.
Its node is an embedded one: a real Lightning node with no channels and no money.
One peer is connected to it, which sends back whatever it gets. In another shell, from this folder:

  .venv/bin/custommsg listen{here}

  .venv/bin/custommsg send {stage.peer_id}{here} --type {EXAMPLE_TYPE} --text hello

  .venv/bin/grpcurl -plaintext -d '{request}' \\
      {stage.address} custommsg.v1.CustomMsgService/SendCustomMsg

  .venv/bin/python -c 'from custommsg import sync; c = sync.connect("{stage.address}"); \
      print(c.send("{stage.peer_id}", type={EXAMPLE_TYPE}, payload=b"hello"))'

What reaches the peer shows below. Ctrl-C ends it all.
"""


def _print(what: object) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)  # noqa: T201 -- said to a person
