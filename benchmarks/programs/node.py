"""A stand-in for lightningd's JSON-RPC socket that answers as fast as Python can: `node.py SOCKET PEER...`.

It says yes to everything, and keeps nothing: so the gateway is measured, and not a node.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

from benchmarks.programs import loops

_SENT: Final = '{"jsonrpc":"2.0","id":%s,"result":{"status":"Message sent to connectd for delivery"}}\n\n'
_INFO: Final = {
    "id": "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "alias": "STANDIN",
    "network": "regtest",
    "version": "v26.06.6",
}


class Standin(asyncio.Protocol):
    """One connection.

    Args:
        peers: what listpeers answers.
    """

    def __init__(self, peers: Sequence[dict[str, Any]]) -> None:
        self._peers = peers
        self._text = ""
        self._decode = json.JSONDecoder().raw_decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by type

    def data_received(self, data: bytes) -> None:
        """Answer all requests that are complete, at once. They need no separator between them."""
        text, end, answers = self._text + data.decode(), 0, []
        try:
            while end < len(text):
                if text[end] in " \r\n\t":
                    end += 1
                    continue
                request, end = self._decode(text, end)
                if request["method"] == "sendcustommsg":
                    answers.append(_SENT % json.dumps(request["id"]))
                else:
                    answers.append(self._answer(request))
        except json.JSONDecodeError:  # the last is not complete yet
            pass
        self._text = text[end:]
        self._transport.write("".join(answers).encode())

    def _answer(self, request: dict[str, Any]) -> str:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        match request["method"]:
            case "getinfo":
                reply["result"] = _INFO
            case "check":
                reply["result"] = {"command_to_check": request["params"]["command_to_check"]}
            case "listpeers":
                reply["result"] = {"peers": self._peers}
            case "plugin":
                reply["result"] = {"command": "start", "plugins": []}
            case method:
                reply["error"] = {"code": -32601, "message": f"Unknown command '{method}'"}
        return json.dumps(reply) + "\n\n"


async def main(path: str, *peers: str) -> None:
    """Serve until stopped."""
    listed = [
        {"id": peer, "connected": True, "num_channels": 0, "netaddr": ["127.0.0.1:9735"]} for peer in peers
    ]
    # Programs that connect for each call fill a short backlog.
    await asyncio.get_running_loop().create_unix_server(lambda: Standin(listed), path, backlog=1024)
    await loops.until_stopped(path)


if __name__ == "__main__":
    loops.run(main(*sys.argv[1:]))
