"""LSPS0 (bLIP-50) on custommsg: JSON-RPC 2.0 between peers, in messages of type 37913.

One side answers `lsps0.list_protocols`, the other asks. Each side needs its own gateway, and their nodes must be
connected to each other:

    python examples/lsps0.py serve --address 127.0.0.1:9737
    python examples/lsps0.py ask PEER --address 127.0.0.1:9738

The specification: https://github.com/lightning/blips/blob/master/blip-0050.md
"""

# ruff: noqa: T201 - an example prints for a person

import argparse
import asyncio
import json
import secrets

from custommsg import CustomMsgError, aio

LSPS0 = 37913
PROTOCOLS = [1, 2]  # the LSPS specifications that this side claims to support; LSPS0 itself is not listed


def parse(payload: bytes) -> dict[str, object] | None:
    """Read a JSON object; return None if the payload is anything else."""
    try:
        found = json.loads(payload.decode()) if b"\0" not in payload else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def answer(payload: bytes) -> dict[str, object] | None:
    """Return the JSON-RPC response to a request; None if it is a response, so that two sides never answer for ever."""
    request = parse(payload)
    if request is None:
        return response(None, error={"code": -32700, "message": "Parse error"})
    if "result" in request or "error" in request:
        return None
    request_id, params = request.get("id"), request.get("params", {})
    if request.get("method") != "lsps0.list_protocols":
        return response(request_id, error={"code": -32601, "message": "Method not found"})
    if params not in ({}, [*b"{}"]):  # gl-client 0.3.4 sends its {} as a list of these two bytes
        data = {"unrecognized": list(params) if isinstance(params, dict) else []}
        return response(request_id, error={"code": -32602, "message": "Invalid params", "data": data})
    return response(request_id, result={"protocols": PROTOCOLS})


def response(request_id: object, **outcome: object) -> dict[str, object]:
    """Make a JSON-RPC response."""
    return {"jsonrpc": "2.0", "id": request_id, **outcome}


async def serve(client: aio.Client) -> None:
    """Answer every request, also those from while this program was not running: the gateway stores our position."""
    async with client.subscribe(types=[LSPS0], consumer="lsps0") as requests:
        print("Answering.", flush=True)
        async for request in requests:
            if (reply := answer(request.payload)) is not None:
                try:
                    await client.send(request.peer_id, type=LSPS0, payload=json.dumps(reply).encode())
                except CustomMsgError as error:  # e.g. the peer has disconnected: it will ask again
                    print(f"Could not answer {request.peer_id_hex}: {error}")
            await requests.ack(request)


async def ask(
    client: aio.Client, peer: str, method: str = "lsps0.list_protocols", **params: object
) -> object:
    """Call a method of a peer; return the result, or raise the error of the response."""
    request_id = secrets.token_hex(16)  # the specification asks for one that cannot be guessed
    call = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    # Subscribe first, so that the response cannot come before the subscription.
    async with asyncio.timeout(60), client.subscribe(types=[LSPS0], peers=[peer]) as replies:
        await client.send(peer, type=LSPS0, payload=json.dumps(call).encode())
        async for reply in replies:
            found = parse(reply.payload) or {}
            if found.get("id") != request_id:
                continue  # the response to another request, or not a response
            if "result" in found:
                return found["result"]
            raise RuntimeError(f"the peer answered with an error: {found.get('error')!r}")
    raise RuntimeError("the client was closed before the answer came")


async def main() -> None:
    """Run one of the two sides."""
    parser = argparse.ArgumentParser(description="LSPS0 on custommsg.")
    parser.add_argument("--address", default="127.0.0.1:9737", help="this side's gateway")
    sides = parser.add_subparsers(dest="side", required=True)
    sides.add_parser("serve", help="answer")
    sides.add_parser("ask", help="ask a peer").add_argument("peer", help="its node id, 66 hex digits")
    arguments = parser.parse_args()
    async with aio.connect(arguments.address) as client:
        if arguments.side == "serve":
            await serve(client)
        else:
            print(json.dumps(await ask(client, arguments.peer)))


if __name__ == "__main__":
    asyncio.run(main())
