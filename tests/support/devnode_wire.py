"""Both ends of the embedded node's sockets, byte by byte: a raw Lightning peer and a raw RPC client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyln.client.lightning import UnixSocket
from pyln.proto.primitives import PrivateKey

from custommsg_testing.devnode import DevNode, bolt1, noise
from custommsg_testing.devnode.networks import NETWORKS

REGTEST = NETWORKS["regtest"].chain_hash
SECONDS = 10.0


class RawPeer:
    """A Lightning peer of which a test decides every message."""

    def __init__(self, key: PrivateKey, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.id = bytes(key.public_key().serializeCompressed())
        self.reader, self.writer = reader, writer
        self.encryptor: noise.Encryptor
        self._decryptor: noise.Decryptor
        self._messages: list[bytes] = []

    async def shake(self, key: PrivateKey, node: DevNode) -> None:
        """Do the handshake as the initiator."""
        initiator = noise.Initiator(key, node.id)
        self.writer.write(initiator.act_one())
        act_two = await asyncio.wait_for(self.reader.readexactly(noise.ACT_TWO_SIZE), SECONDS)
        self.writer.write(initiator.act_three(act_two))
        self.encryptor, self._decryptor = initiator.ciphers()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.writer.write(self.encryptor.encrypt(message))

    async def receive(self) -> bytes | None:
        """Read the next message; None at the end of the connection."""
        while not self._messages:
            data = await asyncio.wait_for(self.reader.read(65536), SECONDS)
            if not data:
                return None
            self._messages = self._decryptor.feed(data)
        return self._messages.pop(0)


@asynccontextmanager
async def raw_peer(
    node: DevNode, *, key: PrivateKey | None = None, init: bytes | None = None
) -> AsyncIterator[RawPeer]:
    """Connect a raw peer to a node; it has sent its init, and not yet read the node's."""
    key = key or PrivateKey(bytes([7]) * 32)
    reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
    try:
        peer = RawPeer(key, reader, writer)
        await peer.shake(key, node)
        peer.send(bolt1.Init(b"", (REGTEST,)).encode() if init is None else init)
        yield peer
    finally:
        writer.close()


class RawRpc:
    """A client of the RPC socket that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> Any:
        """Read the next reply."""
        return json.loads(await self.reply_bytes())

    async def reply_bytes(self) -> bytes:
        """Read the next reply as it was written."""
        return await asyncio.wait_for(self.reader.readuntil(b"\n\n"), SECONDS)

    async def ask(self, request: bytes) -> Any:
        """Send bytes, and read the next reply."""
        self.writer.write(request)
        return await self.reply()

    async def call(self, method: str, params: object = (), request_id: object = 1) -> Any:
        """Make a call, and return its `result` or its `error`."""
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        reply = await self.ask(json.dumps(request).encode())
        assert reply["id"] == request_id
        return reply["result"] if "result" in reply else reply["error"]


@asynccontextmanager
async def raw_rpc(rpc_file: Path) -> AsyncIterator[RawRpc]:
    """Connect to a node's RPC socket."""
    opened = UnixSocket(str(rpc_file))  # it knows the way to a long path
    sock, opened.sock = opened.sock, None
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        yield RawRpc(reader, writer)
    finally:
        writer.close()
