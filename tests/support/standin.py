"""A stand-in for lightningd's JSON-RPC socket that does what a test tells it, faults included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Request = dict[str, Any]

SENT = {"status": "Message sent to connectd for delivery"}
GETINFO = {
    "id": "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "alias": "STANDIN",
    "network": "regtest",
    "version": "v26.06.6",
}


@dataclass
class Connection:
    """One connection from the gateway."""

    writer: asyncio.StreamWriter

    def reply(self, request: Request, result: Any) -> None:
        """Answer a request with a result."""
        self.raw(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n\n")

    def error(self, request: Request, code: int, message: str) -> None:
        """Answer a request with an error."""
        body = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}
        self.raw(json.dumps(body).encode() + b"\n\n")

    def raw(self, data: bytes) -> None:
        """Write any bytes."""
        self.writer.write(data)

    def close(self) -> None:
        """End the connection at once."""
        self.writer.transport.abort()


Behaviour = Callable[[Connection, Request], Awaitable[None]]


async def answer(connection: Connection, request: Request) -> None:
    """Answer as lightningd does when all is well."""
    match request["method"]:
        case "getinfo":
            connection.reply(request, GETINFO)
        case "sendcustommsg":
            connection.reply(request, SENT)
        case "check":
            connection.reply(request, {"command_to_check": request["params"]["command_to_check"]})
        case "connect":
            connection.reply(request, {"id": request["params"]["id"], "features": "", "direction": "out"})
        case "listpeers":
            connection.reply(request, {"peers": []})
        case method:
            connection.error(request, -32601, f"Unknown command '{method}'")


@dataclass
class StandIn:
    """A running stand-in. Set `on_send` to change what it does with `sendcustommsg`."""

    rpc_file: Path
    on_send: Behaviour = answer
    on_getinfo: Behaviour = answer
    on_connect: Behaviour = answer
    on_listpeers: Behaviour = answer
    requests: list[Request] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def sent(self) -> list[Request]:
        """Return the `sendcustommsg` requests that came in."""
        return [request for request in self.requests if request["method"] == "sendcustommsg"]

    async def wait_sent(self, count: int) -> None:
        """Wait until that many messages were to be sent."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.sent()) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests, which have no separator between them, and act on each."""
        connection = Connection(writer)
        self.connections.append(connection)
        decoder, text = json.JSONDecoder(), ""
        try:
            while data := await reader.read(1 << 20):
                text += data.decode()
                while text:
                    try:
                        request, end = decoder.raw_decode(text)
                    except json.JSONDecodeError:
                        break
                    text = text[end:].lstrip()
                    await self._take(connection, request)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _take(self, connection: Connection, request: Request) -> None:
        async with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        behaviours = {
            "sendcustommsg": self.on_send,
            "getinfo": self.on_getinfo,
            "connect": self.on_connect,
            "listpeers": self.on_listpeers,
        }
        await behaviours.get(request["method"], answer)(connection, request)


@asynccontextmanager
async def running(rpc_file: Path, **behaviours: Behaviour) -> AsyncIterator[StandIn]:
    """Run a stand-in for as long as the context lasts."""
    rpc_file.unlink(missing_ok=True)
    standin = StandIn(rpc_file, **behaviours)
    server = await asyncio.start_unix_server(standin.serve, rpc_file)
    try:
        yield standin
    finally:
        server.close()
        for connection in standin.connections:
            connection.close()
        await server.wait_closed()
