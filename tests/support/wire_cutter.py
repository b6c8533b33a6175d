"""A TCP proxy that can go dead: connections stay open, and nothing passes any more."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class WireCutter:
    """Passes bytes between its callers and one address, until `cut`; connections made after that pass again."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._cut = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self.address = ""

    def cut(self) -> None:
        """Let the connections that there are go dead: no byte passes, and neither side is told."""
        self._cut.set()
        self._cut = asyncio.Event()

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection."""
        self._connections.add(asyncio.create_task(self._serve(reader, writer, self._cut)))

    async def _serve(self, reader: StreamReader, writer: StreamWriter, cut: asyncio.Event) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
        try:
            await asyncio.gather(
                _pass_on(reader, there_writer, cut),
                _pass_on(there_reader, writer, cut),
                return_exceptions=True,
            )
        finally:
            for sink in (writer, there_writer):
                sink.close()
                with suppress(OSError):
                    await sink.wait_closed()

    async def stop(self) -> None:
        """End every connection."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _pass_on(source: StreamReader, sink: StreamWriter, cut: asyncio.Event) -> None:
    while data := await source.read(65_536):
        if not cut.is_set():
            sink.write(data)
    if not cut.is_set():
        sink.close()


@asynccontextmanager
async def run(address: str) -> AsyncIterator[WireCutter]:
    """Run a proxy in front of `address`."""
    cutter = WireCutter(address)
    server = await asyncio.start_server(cutter.accept, "127.0.0.1", 0)
    cutter.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cutter
    finally:
        server.close()
        await cutter.stop()
