"""`custommsg-server try`: a gateway to try out, on an embedded node with a peer."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from custommsg_testing import devnode, gateway
from custommsg_testing.gateway import GatewayWithPeer

EXAMPLE_TYPE: Final = 40001


async def try_out(listen: str, as_json: bool, stop: asyncio.Event) -> None:
    """Run a gateway until `stop`. Print commands for another shell, then each message that reaches the peer.

    Args:
        listen: where the gateway listens.
        as_json: print one JSON object a line, for a program.
        stop: set it to end.
    """

    async def echo(peer: devnode.DevNode, received: devnode.Received) -> None:
        _print({"type": received.type, "payload": received.payload.hex()} if as_json else _line(received))
        await peer.send(received.peer_id, received.message)

    with tempfile.TemporaryDirectory(prefix="custommsg-") as folder:
        async with gateway.run(
            Path(folder), listen, on_message=echo, keep_peer=True, strict=False
        ) as running:
            _print(_summary(running) if as_json else _welcome(running))
            await stop.wait()


def _summary(running: GatewayWithPeer) -> dict[str, str]:
    return {"address": running.address, "node_id": running.node.id.hex(), "peer_id": running.peer.id.hex()}


def _line(received: devnode.Received) -> str:
    payload = received.payload
    text = payload.decode(errors="replace") if payload.isascii() else ""
    preview = repr(text)[1:-1][:60] if text else payload[:30].hex()
    return f"peer received  type {received.type}  {len(payload):,} bytes  {preview}"


def _welcome(running: GatewayWithPeer) -> str:
    address, peer_id = running.address, running.peer.id.hex()
    message = {"peer_id_hex": peer_id, "msg_hex": f"{EXAMPLE_TYPE:04x}" + b"hello".hex()}
    programs = Path(sys.executable).parent
    if programs.is_relative_to(Path.cwd()):
        programs = programs.relative_to(Path.cwd())
    option = "" if address == "127.0.0.1:9737" else f" --address {address}"
    grpcurl = f"""\
  {programs}/grpcurl -plaintext -d '{json.dumps({"message": message})}' \\
      {address} custommsg.v1.CustomMsgService/SendCustomMsg

"""
    if not (Path(sys.executable).parent / "grpcurl").exists():  # installed by `make setup` only
        grpcurl = ""
    return f"""
A gateway listens on {address}. It has no access control.
Its node is an embedded Lightning node without channels and money. The node has one peer, which sends messages back.

To receive, in a second shell in this folder, until Ctrl-C:

  {programs}/custommsg listen{option}

To send, in a third shell:

  {programs}/custommsg send {peer_id}{option} --type {EXAMPLE_TYPE} --text hello

{grpcurl}  {programs}/python -c 'from custommsg import sync; c = sync.connect("{address}"); \\
      print(c.send("{peer_id}", type={EXAMPLE_TYPE}, payload=b"hello"))'

Messages that reach the peer are printed below. The peer knows no even types: a message of one (`send --even`) makes it
disconnect, as BOLT 1 demands, and it connects again at once. Ctrl-C ends everything.
"""


def _print(what: object) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)  # noqa: T201 -- output for a person
