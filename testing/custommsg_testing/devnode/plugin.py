"""One plugin: its process, and JSON-RPC over its standard input and output."""

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
"""Seconds that a process may take from the end of its output to its own end, before it is killed.

Killing a process that is about to exit confuses asyncio's child watcher."""

Response = Mapping[str, Any]
"""A whole JSON-RPC response, with its `result` or its `error`."""

_ids = itertools.count()


class PluginGoneError(Exception):
    """The plugin has ended or was killed. The message says why, in lightningd's words."""


class Plugin(asyncio.SubprocessProtocol):
    """A plugin's process, from its start to its end.

    `path` is the executable, `state` what it has done so far in lightningd's words, `manifest` its manifest, None until
    the plugin has answered getmanifest.

    Args:
        path: the executable.
        gone: called once, when the plugin has ended.
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
            directory: its working directory.
            version: the version of the node.

        Raises:
            OSError: it cannot be executed.
        """
        environment = os.environ | {"LIGHTNINGD_PLUGIN": "1", "LIGHTNINGD_VERSION": version}
        await asyncio.get_running_loop().subprocess_exec(
            lambda: self, str(self.path), stderr=None, env=environment, cwd=directory
        )

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the process, which may end before `launch` returns."""
        # uvloop's transports do not inherit from asyncio's, hence the cast.
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
        """Treat a plugin that has closed its standard output as ended."""
        self._flowing.set()
        if fd == 1:
            self.kill(logging.INFO, f"exited {self.state}", patience=_EXIT_TIME)

    def process_exited(self) -> None:
        """Note that the process has ended."""
        self.kill(logging.INFO, f"exited {self.state}")
        # A child of the process may keep the pipes open, so that they must be closed here.
        if self._process is not None:
            self._process.close()
        self.exited.set()

    # What is written to the plugin.

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The plugin's standard input."""
        assert self._process is not None
        return cast("asyncio.WriteTransport", self._process.get_pipe_transport(0))

    async def drain(self) -> None:
        """Wait until the plugin has read enough to be sent more."""
        await self._flowing.wait()

    def pause_writing(self) -> None:
        """Note that the pipe is full."""
        self._flowing.clear()

    def resume_writing(self) -> None:
        """Note that the pipe has room again."""
        self._flowing.set()

    @property
    def busy(self) -> bool:
        """Whether the plugin reads slower than we write, so that `drain` should be awaited."""
        return not self._flowing.is_set()

    def request(
        self, method: str, params: bytes, answered: Callable[[Response | None], None], prefix: object = None
    ) -> None:
        """Call a method of the plugin, without waiting for the response.

        Args:
            method: the name of the method.
            params: its params, as JSON.
            answered: called with the response, or with None if the plugin ends without one.
            prefix: the id of the request that caused this one.
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
        """Call a method of the plugin, and return the response.

        Raises:
            PluginGoneError: the plugin ended without one.
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
        """Send the plugin a notification, if it has subscribed to its topic.

        Args:
            topic: the topic, which is also the name of the only member of the params.
            params: the content, as JSON.
        """
        if self.active and not self.why_gone and self.manifest is not None and self.manifest.wants(topic):
            self._outbox.write(
                b'{"jsonrpc":"2.0","method":"%b","params":{"%b":%b}}\n\n'
                % (topic.encode(), topic.encode(), params)
            )

    # Its end.

    def kill(self, level: int, why: str, patience: float = 0.0) -> None:
        """End the process. If this is called more than once, the first reason counts.

        Args:
            level: the level at which the reason is logged.
            why: the reason, in lightningd's words.
            patience: seconds that the process may take to end by itself.
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
            self._say(logging.INFO, f"{len(unanswered)} calls were not answered")
        self._gone(self)
        for answered in unanswered.values():
            answered(None)

    def _kill_process(self) -> None:
        if self._process is not None and not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def forget_calls(self) -> None:
        """Do not wait for responses any more, because the node stops."""
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
            # lightningd passes on the notifications that a manifest declares. This node does not.
            self._say(logging.WARNING, f"dropped a notification with the topic {message['method']!r}")

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
