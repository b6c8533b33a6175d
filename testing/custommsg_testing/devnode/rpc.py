"""The node's JSON-RPC on a unix socket, as lightningd has it.

Requests need no separator. A slow command runs in a task of its own, so that replies may come in another order than
their requests. The texts are those of lightningd/jsonrpc.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from custommsg_testing.devnode import params as p
from custommsg_testing.devnode.jsonframes import JsonFrames, NotJsonError, encode
from custommsg_testing.devnode.outbox import Outbox
from custommsg_testing.devnode.params import INVALID_REQUEST, METHOD_NOT_FOUND, Param, RpcError
from custommsg_testing.devnode.table import Call, CheckedError, Command, Json, Node

logger = logging.getLogger(__name__)

_READ_SIZE: Final = 256 * 1024
_CLOSE_TIMEOUT: Final = 1.0

INTERNAL_ERROR: Final = -32603
"""JSON-RPC's code for an error of the server itself. lightningd has no such reply."""


class RpcServer:
    """Serves a node's commands.

    Args:
        node: the node.
        find: returns the command of a name, if there is one.
    """

    def __init__(self, node: Node, find: Callable[[str], Command | None]) -> None:
        self._node, self._find = node, find
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Open the socket with mode 0600, and replace one that a stopped node has left behind."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_bind(path), backlog=128)

    async def close(self) -> None:
        """End all connections after the replies that are ready. Commands that still run are not answered."""
        await self._end()
        for writer in self._writers:
            writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await asyncio.gather(
                    *(writer.wait_closed() for writer in self._writers), return_exceptions=True
                )
        self._abort()

    async def kill(self) -> None:
        """Cut all connections, as a crash would."""
        self._abort()
        await self._end()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        current = asyncio.current_task()
        tasks = [task for task in self._connections | self._running if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._writers.add(writer)
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, outbox = JsonFrames(), Outbox(writer)
        try:
            while data := await reader.read(_READ_SIZE):
                for request in frames.feed(data):
                    if "jsonrpc" not in request:
                        # lightningd answers this once, and nothing else on this connection.
                        outbox.write(_error(None, _no_jsonrpc(request)))
                        return
                    self._handle(request, outbox)
                # While a client does not read its replies, no more of its requests are read, as in lightningd.
                await outbox.drain()
        except NotJsonError as error:
            logger.warning("RPC: closed a connection that sent something other than JSON: %r", str(error))
        except OSError as error:
            logger.debug("RPC: %s", error)
        finally:
            outbox.flush()
            writer.close()
            self._writers.discard(writer)

    def _handle(self, request: object, outbox: Outbox) -> None:
        try:
            request_id, method, given = _parse(request)
        except RpcError as error:
            outbox.write(_error(None, error))
            return
        try:
            if method is None or given is None:
                raise RpcError(INVALID_REQUEST, "No method" if method is None else "No params")
            command, result = self._start(request_id, method, given)
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(self._finish(request_id, command, result, outbox))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                outbox.write(_success(request_id, result, spaced=command.spaced))
        except RpcError as error:
            outbox.write(_error(request_id, error))
        except CheckedError:
            outbox.write(_success(request_id, {"command_to_check": _checked_name(given)}))
        except Exception as error:
            outbox.write(_error(request_id, _bug(method, error)))

    async def _finish(
        self, request_id: object, command: Command, result: Awaitable[Json], outbox: Outbox
    ) -> None:
        try:
            outbox.write(_success(request_id, await result, spaced=command.spaced))
        except RpcError as error:
            outbox.write(_error(request_id, error))
        except CheckedError:
            outbox.write(_success(request_id, {"command_to_check": command.name}))
        except Exception as error:
            outbox.write(_error(request_id, _bug(command.name, error)))

    def _start(
        self, request_id: object, method: object, given: Any, *, check: bool = False
    ) -> tuple[Command, Json | Awaitable[Json]]:
        if not isinstance(method, str):
            raise RpcError(INVALID_REQUEST, "Expected string for method")
        if method == "check":
            name = p.bind([Param("command_to_check", p.string)], given, extra=True)["command_to_check"]
            rest = given[1:] if isinstance(given, list) else dict(given)
            if isinstance(rest, dict):
                del rest["command_to_check"]
            return self._start(request_id, name, rest, check=True)
        command = self._find(method)
        if command is None:
            raise RpcError(METHOD_NOT_FOUND, f"Unknown command '{method}'")
        arguments = {"given": given} if command.params is None else p.bind(command.params, given)
        return command, command.run(Call(self._node, check, request_id), **arguments)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    # The address of a unix socket holds about 100 bytes. Through a link to its directory every path is short enough.
    # Besides, asyncio would remove a socket whose path it knows, while lightningd leaves its own behind.
    with tempfile.TemporaryDirectory() as short:
        link = Path(short) / "d"
        link.symlink_to(path.parent.absolute())
        mask = os.umask(0o177)
        try:
            sock.bind(str(link / path.name))
        finally:
            os.umask(mask)
    return sock


def _bug(method: object, error: Exception) -> RpcError:
    logger.error("RPC: the command %s failed unexpectedly", method, exc_info=error)
    return RpcError(INTERNAL_ERROR, f"This is a bug in the embedded node, please report it: {error!r}")


def _no_jsonrpc(request: object) -> RpcError:
    text = f"JSON-RPC message does not contain \"jsonrpc\" field: '{p.token(request)}'"
    return RpcError(INVALID_REQUEST, text)


def _parse(request: object) -> tuple[object, object, Any]:
    if not isinstance(request, dict):
        raise RpcError(INVALID_REQUEST, "Expected {} for json command")
    if "id" not in request:
        raise RpcError(INVALID_REQUEST, "No id")
    if isinstance(request["id"], dict | list):
        raise RpcError(INVALID_REQUEST, "Expected string/primitive for id")
    if request.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc: "2.0" must be specified in the request')
    return request["id"], request.get("method"), request.get("params")


def _checked_name(given: Any) -> str:
    return str(given[0] if isinstance(given, list) else given["command_to_check"])


def _success(request_id: object, result: object, *, spaced: bool = False) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result}, spaced=spaced)


def _error(request_id: object, error: RpcError) -> bytes:
    return encode(
        {"jsonrpc": "2.0", "id": request_id, "error": {"code": error.code, "message": error.message}}
    )
