"""lightningd and its peers, as far as the plugin channel sees them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from custommsg_server.domain.errors import Reason, RelayError
from simulation.ledger import Fate
from simulation.machine import Wire
from support.keys import node_id
from support.lightningd_end import token_in

if TYPE_CHECKING:
    from simulation.world import World

END: Final = b"\n\n"
PEERS: Final = tuple(node_id(number) for number in range(2, 8))
OURS: Final = node_id(1)


class Plugin:
    """lightningd's end of one plugin channel."""

    def __init__(self, world: World, wire: Wire, token: bytes) -> None:
        self._world = world
        self.wire = wire
        self.is_active = False
        """Whether lightningd calls its hook."""
        self.is_over = False
        self.started: asyncio.Future[None] = wire.loop.create_future()
        self._written = 0
        self._answers = bytearray()
        self._calls: deque[tuple[int, int]] = deque()
        """Hook calls that the gateway has not read to the end: where they end, and the number of the message."""
        self.unanswered: dict[str, int] = {}
        self._write(token)
        self._request("getmanifest", {"allow-deprecated-apis": False})

    def _write(self, data: bytes) -> None:
        self.wire.to_gateway += data
        self._written += len(data)

    def _request(self, method: str, params: object) -> None:
        request = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
        self._write(json.dumps(request).encode() + END)

    def call(self, request_id: str, number: int) -> None:
        """Call the hook."""
        one = self._world.ledger.messages[number]
        params = {"payload": one.message.hex(), "peer_id": one.peer_id.hex()}
        call = {"jsonrpc": "2.0", "id": request_id, "method": "custommsg", "params": params}
        self._write(json.dumps(call).encode() + END)
        self._calls.append((self._written, number))
        self.unanswered[request_id] = number

    def notify(self, method: str, peer_id: bytes) -> None:
        """Tell of a peer that has come or gone."""
        notification = {"jsonrpc": "2.0", "method": method, "params": {method: {"id": peer_id.hex()}}}
        self._write(json.dumps(notification).encode() + END)

    def deliver(self, size: int) -> None:
        """Let the gateway read some bytes; take note of what it has then."""
        self.wire.deliver(size)
        ledger = self._world.ledger
        while self._calls and self._calls[0][0] <= self.wire.delivered:
            _, number = self._calls.popleft()
            one = ledger.messages[number]
            if one.fate is Fate.SENT:  # else it was handed to the inbox
                ledger.became([number], Fate.REFUSED if one.is_wanted else Fate.IGNORED)

    def read(self) -> None:
        """Read what the gateway has answered, or that it has closed the channel."""
        self._answers += self.wire.to_node
        self.wire.to_node.clear()
        *frames, rest = self._answers.split(END)
        self._answers = bytearray(rest)
        for frame in frames:
            self._take(json.loads(frame))
        if self.wire.is_closing():
            self.end()

    def _take(self, answer: dict[str, Any]) -> None:
        request_id = answer.get("id")
        if request_id == "getmanifest":
            configuration = {"lightning-dir": "/l", "rpc-file": "rpc", "startup": False, "network": "regtest"}
            self._request("init", {"options": {}, "configuration": configuration})
        elif request_id == "init":
            if "disable" in (answer["result"] or {}):
                self._world.note("the gateway declines")
                self.end()
            else:
                self._world.note("the plugin is started")
                self.is_active = True
                self._started()
        elif request_id is not None:
            if answer.get("result") != {"result": "continue"} or "error" in answer:
                self._world.broken(f"lightningd dies of an answer: {answer}")
            if (number := self.unanswered.pop(request_id, None)) is None:
                self._world.broken(f"{request_id} was answered, and was not called or was answered before")
            else:
                self._world.ledger.answered(number)

    def _started(self, error: RelayError | None = None) -> None:
        if not self.started.done():
            self.started.set_result(None) if error is None else self.started.set_exception(error)
            if error is not None:
                self.started.exception()  # the gateway may not wait for it any more

    def end(self) -> None:
        """End the plugin's process; its unanswered hook calls are lost by lightningd."""
        self.is_over, self.is_active = True, False
        self.unanswered.clear()
        self.wire.hang_up()
        self._started(RelayError(Reason.NODE_ERROR, "the plugin exited before it was initialised"))

    def break_off(self) -> None:
        """End it because lightningd has died: perhaps in the middle of what it writes."""
        some, wire = self._world.some, self.wire
        if some.random() < 0.5:
            del wire.to_gateway[some.randint(0, len(wire.to_gateway)) :]
        if some.random() < 0.3:
            wire.reset()
        self.end()


class Lightningd:
    """lightningd, which may die and come back, and its peers, who send as they like."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.starts = 1
        """How often it was started."""
        self.is_up = True
        self.plugins: list[Plugin] = []
        self._calls = 0

    @property
    def active(self) -> Plugin | None:
        """The plugin whose hook is called."""
        return next((plugin for plugin in self.plugins if plugin.is_active), None)

    async def start_plugin(self, script: str) -> None:
        """Do what `plugin start` does."""
        if not self.is_up or self._world.is_unlucky():
            raise RelayError(Reason.NODE_UNAVAILABLE, "lightningd cannot start plugins now")
        await self.connect(script).started

    def connect(self, script: str, token: bytes | None = None) -> Plugin:
        """Start the script; a wrong token is that of a script from before a restart of the gateway."""
        loop = self._world.life.loop
        server = loop.servers[script.replace("custommsg-attach", "plugin.sock")]
        plugin = Plugin(self._world, server.connect(), token or token_in(Path(script)))
        self.plugins.append(plugin)
        return plugin

    def send(self, peer_id: bytes, message_type: int, size: int, is_wanted: bool) -> None:
        """Have a peer send a message."""
        number = self._world.ledger.sent(peer_id, message_type, size, is_wanted)
        if (plugin := self.active) is not None:
            self._calls += 1
            plugin.call(f"cln:custommsg#{self._calls}", number)

    def notify(self, method: str, peer_id: bytes) -> None:
        """Have a peer connect or disconnect."""
        if (plugin := self.active) is not None:
            plugin.notify(method, peer_id)

    def stop(self) -> None:
        """Die."""
        self.is_up = False
        for plugin in self.plugins:
            if not plugin.is_over:
                plugin.break_off()

    def start(self) -> None:
        """Start again; the ids of calls begin anew."""
        self.is_up, self._calls = True, 0
        self.starts += 1

    def forget_old(self) -> None:
        """Forget connections that are closed at both ends."""
        self.plugins = [one for one in self.plugins if not (one.is_over and one.wire.is_over)]
