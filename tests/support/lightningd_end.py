"""lightningd's end of the plugin channel, for tests that need more than a Lightning node does."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from support.keys import node_id

PEER = node_id(7)


def token_in(script: Path) -> bytes:
    """Return the line that a gateway's script sends first."""
    found = re.search(r"^token=(\w+)$", script.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].encode() + b"\n"


class LightningdEnd:
    """Calls the hook over the gateway's plugin socket, as lightningd's plugin process would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._called = 0

    @classmethod
    async def connect(cls, plugin_socket: Path) -> LightningdEnd:
        """Connect, and introduce ourselves."""
        script = plugin_socket.with_name("custommsg-attach")
        async with asyncio.timeout(20):
            while True:
                try:
                    end = cls(*await asyncio.open_unix_connection(plugin_socket))
                    end._writer.write(token_in(script))
                    break
                except OSError:
                    await asyncio.sleep(0.01)
        await end.ask("getmanifest", {"allow-deprecated-apis": False})
        assert not await end.init(), "the gateway declines"
        return end

    async def init(self) -> Any:
        """Introduce ourselves; return the answer."""
        configuration = {"lightning-dir": "/l", "rpc-file": "rpc", "startup": False, "network": "regtest"}
        return await self.ask("init", {"options": {}, "configuration": configuration})

    async def call_hooks(self, messages: list[bytes]) -> None:
        """Call the hook for each message, and wait until each has been answered with continue."""
        lines = []
        for message in messages:
            self._called += 1
            lines.append(
                f'{{"jsonrpc":"2.0","id":"cln:custommsg#{self._called}","method":"custommsg",'
                f'"params":{{"payload":"{message.hex()}","peer_id":"{PEER.hex()}"}}}}\n\n'
            )
        self._writer.write("".join(lines).encode())
        await self._writer.drain()
        for _ in messages:
            reply = await self._reader.readuntil(b"\n\n")
            assert b'"result":{"result":"continue"}' in reply, reply

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Make a request; return the result."""
        request = {"jsonrpc": "2.0", "id": f"cln:{method}#1", "method": method, "params": params}
        self._writer.write(json.dumps(request).encode() + b"\n\n")
        while "result" not in (reply := json.loads(await self._reader.readuntil(b"\n\n"))):
            assert "error" not in reply, reply  # else it is a log line
        return reply["result"]
