"""One plugin: its process, and JSON-RPC over its stdin and stdout."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from custommsg_testing.devnode.jsonframes import JsonFrames, NotJsonError, encode
from custommsg_testing.devnode.manifest import Manifest
from custommsg_testing.devnode.outbox import Outbox

logger = logging.getLogger(__name__)

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_EXIT_TIME: Final = 0.2
"""Seconds from a closed stdout to the end: to kill a process that is ending confuses asyncio's watcher."""

Response = Mapping[str, Any]
"""The whole JSON-RPC response, with its `result` or its `error`."""

_ids = itertools.count()


class PluginGoneError(Exception):
    """The plugin has ended or was killed; the message says why in lightningd's words."""


class Plugin(asyncio.SubprocessProtocol):
    """A plugin's process, from its start to its end.

    `path` is the executable, `state` how far it has come, `manifest` is None until it has answered.

    Args:
        path: the executable.
        gone: called once when it has ended.
    """

    def __init__(self, path: Path, gone: Callable[[Plugin], None]) -> None:
        self.path, self.name = path, path.name
        self.manifest: Manifest | None = None
        self.active = False
        self.state = "before replying to getmanifest"
        self.why_gone = ""
        self.exited = asyncio.Event()
        self._gone = gone
        self._frames = JsonFrames()
        self._waiting: dict[str, Callable[[Response | None], None]] = {}
        self._process: asyncio.SubprocessTransport | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def launch(self, directory: Path, version: str) -> None:
        """Start the process.

        Args:
            directory: where it runs.
            version: the node's.

        Raises:
            OSError: it cannot be executed.
        """
        environment = os.environ | {"LIGHTNINGD_PLUGIN": "1", "LIGHTNINGD_VERSION": version}
        await asyncio.get_running_loop().subprocess_exec(
            lambda: self, str(self.path), stderr=None, env=environment, cwd=directory
        )

    # The way in: asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take hold of the process, which may end before `launch` returns."""
        # uvloop's transports are none of asyncio's classes, though they do the same.
        self._process = cast("asyncio.SubprocessTransport", transport)
        self._outbox = Outbox(self)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take in what the plugin has written."""
        try:
            for message in self._frames.feed(data):
                self._receive(message)
        except NotJsonError as error:
            self.kill(logging.WARNING, f"Failed to parse RPC JSON response '{error}'")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Notice that the plugin has closed its stdout: it is dead, or as good as dead."""
        self._flowing.set()
        if fd == 1:
            self.kill(logging.INFO, f"exited {self.state}", patience=_EXIT_TIME)

    def process_exited(self) -> None:
        """Notice that the process has ended."""
        self.kill(logging.INFO, f"exited {self.state}")
        # A child of it may hold the pipes open: closing them is what ends our side.
        if self._process is not None:
            self._process.close()
        self.exited.set()

    # The way out.

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The plugin's stdin."""
        assert self._process is not None
        return cast("asyncio.WriteTransport", self._process.get_pipe_transport(0))

    async def drain(self) -> None:
        """Wait until the plugin has read enough for more to be worth writing."""
        await self._flowing.wait()

    def pause_writing(self) -> None:
        """Note that the pipe is full."""
        self._flowing.clear()

    def resume_writing(self) -> None:
        """Note that the pipe has room again."""
        self._flowing.set()

    @property
    def busy(self) -> bool:
        """The plugin does not read as fast as we write: await `drain`."""
        return not self._flowing.is_set()

    def request(
        self, method: str, params: bytes, answered: Callable[[Response | None], None], prefix: object = None
    ) -> None:
        """Call a method of the plugin, without waiting.

        Args:
            method: its name.
            params: JSON.
            answered: gets the response, or None when the plugin ends without one.
            prefix: the id of the request that this one comes from.
        """
        request_id = f"cln:{method}#{next(_ids)}"
        if isinstance(prefix, str):
            request_id = f"{prefix}/{request_id}" if prefix.isprintable() else f"weird-id/{request_id}"
        if self.why_gone:
            answered(None)
            return
        self._waiting[request_id] = answered
        quoted = encode(request_id)[:-2]
        self._outbox.write(
            b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":%b}\n\n' % (quoted, method.encode(), params)
        )

    async def call(self, method: str, params: Mapping[str, Any], prefix: object = None) -> Response:
        """Call a method of the plugin and wait for the response.

        Raises:
            PluginGoneError: it ends without one.
        """
        future: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

        def answered(response: Response | None) -> None:
            if not future.done():
                future.set_result(response)

        self.request(method, encode(params)[:-2], answered, prefix)
        response = await future
        if response is None:
            raise PluginGoneError(self.why_gone)
        return response

    def notify(self, topic: str, params: bytes) -> None:
        """Tell the plugin something, if it has subscribed to it.

        Args:
            topic: what it is about; the params have one member of this name.
            params: JSON.
        """
        if self.active and not self.why_gone and self.manifest is not None and self.manifest.wants(topic):
            self._outbox.write(
                b'{"jsonrpc":"2.0","method":"%b","params":{"%b":%b}}\n\n'
                % (topic.encode(), topic.encode(), params)
            )

    # The end.

    def kill(self, level: int, why: str, patience: float = 0.0) -> None:
        """End the process; the first reason counts.

        Args:
            level: of the log.
            why: lightningd's words for the reason.
            patience: seconds in which it may still end by itself.
        """
        if self.why_gone:
            return
        self.why_gone, self.active = why, False
        self._say(level, f"Killing plugin: {why}")
        if patience:
            asyncio.get_running_loop().call_later(patience, self._kill_process)
        else:
            self._kill_process()
        unanswered, self._waiting = self._waiting, {}
        if unanswered:
            self._say(logging.INFO, f"{len(unanswered)} calls stay unanswered")
        self._gone(self)
        for answered in unanswered.values():
            answered(None)

    def _kill_process(self) -> None:
        if self._process is not None and not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def forget_calls(self) -> None:
        """Expect no answers any more: the node stops."""
        self._waiting.clear()

    def _receive(self, message: Any) -> None:
        if not isinstance(message, dict) or "jsonrpc" not in message:
            beginning = str(message)[:200]
            self.kill(logging.WARNING, f"JSON-RPC message does not contain \"jsonrpc\" field: '{beginning}'")
        elif "id" not in message:
            self._receive_notification(message)
        elif (answered := self._waiting.pop(str(message["id"]), None)) is not None:
            answered(message)

    def _receive_notification(self, message: Mapping[str, Any]) -> None:
        params = message.get("params")
        if "method" not in message or params is None:
            self.kill(logging.WARNING, 'Malformed JSON-RPC notification missing "method" or "params"')
        elif message["method"] == "log":
            self._log(params)
        elif message["method"] not in ("message", "progress"):
            # lightningd passes on the notifications that a manifest declares; here nobody would hear them.
            self._say(logging.WARNING, f"dropped a notification of topic {message['method']!r}")

    def _log(self, params: Any) -> None:
        text = params.get("message") if isinstance(params, dict) else None
        if not isinstance(text, str):
            why = 'Log notification from plugin doesn\'t have a string "message" field'
            return self.kill(logging.WARNING, why)
        level = params.get("level", "info")
        if level not in _LEVELS:
            known = '"trace", "debug", "info", "warn", or "error"'
            return self.kill(logging.WARNING, f"Unknown log-level {level}, valid values are {known}.")
        for line in text.split("\n"):
            self._say(_LEVELS[level], line)
        return None

    def _say(self, level: int, text: str) -> None:
        logger.log(level, "plugin-%s: %s", self.name, text)
