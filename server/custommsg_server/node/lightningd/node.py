"""lightningd behind the port: its commands as requests on the link."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from custommsg_server.domain.caller import Use
from custommsg_server.domain.errors import RelayError
from custommsg_server.domain.wire import NodeId
from custommsg_server.node.lightningd import replies
from custommsg_server.node.lightningd.connection import Connection
from custommsg_server.node.lightningd.fair_queue import Reply
from custommsg_server.node.lightningd.link import Link, LinkOptions
from custommsg_server.node.port import Announcement, Connected, NodeInfo, Outbound, Peer, PeerAddress

_NO_OPTIONS = LinkOptions()


class Lightningd:
    """A lightningd, reached through its JSON-RPC socket. Implements `node.port.Node`.

    Args:
        rpc_file: the socket; it need not exist yet.
        options: the options of the link.
    """

    def __init__(self, rpc_file: Path, options: LinkOptions = _NO_OPTIONS) -> None:
        self._link = Link(rpc_file, self._greet, options)
        self._info: NodeInfo | None = None
        self._reply_timeout = options.reply_timeout

    async def run(self) -> None:
        """Keep the link until cancelled."""
        await self._link.run()

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher` now and whenever the link goes up or down."""
        self._link.watch(watcher)

    @property
    def is_up(self) -> bool:
        """Whether the node answers now."""
        return self._link.is_up

    @property
    def info(self) -> NodeInfo | None:
        """The node as it last described itself, or None if it never did."""
        return self._info

    def has_room(self, caller: str) -> bool:
        """See `node.port.Node`. True if it cannot be reached: then requests fail at once."""
        return self._link.has_room(caller)

    async def room(self, caller: str) -> None:
        """See `node.port.Node`."""
        with suppress(RelayError):
            await self._link.connection().room(caller)

    async def send(
        self, batch: Sequence[Outbound], deadline: float, caller: str, held_back: bool = False
    ) -> list[str | RelayError]:
        """Make one `sendcustommsg` for each message, in order."""
        try:
            # Hex needs no escaping, so the JSON is written directly: this is the hot path.
            requests = [
                f'{{"node_id":"{peer_id.hex()}","msg":"{message.hex()}"}}' for peer_id, message in batch
            ]
            connection = self._link.connection()
            answers = await connection.call("sendcustommsg", requests, deadline, caller, held_back)
        except RelayError as error:
            return [error] * len(batch)
        return list(map(replies.outcome_of, answers))

    async def check(self, outbound: Outbound, deadline: float, caller: str) -> None:
        """Run lightningd's checks on a message: `check sendcustommsg`."""
        params = (
            f'{{"command_to_check":"sendcustommsg",'
            f'"node_id":"{outbound.peer_id.hex()}","msg":"{outbound.message.hex()}"}}'
        )
        await self._call("check", params, deadline, caller)

    async def check_rune(
        self, rune: str, uses: Sequence[Use], deadline: float, caller: str
    ) -> list[RelayError | None]:
        """Ask `checkrune` for each use, all in one write. A rune is base64, which needs no escaping in JSON."""
        requests = [
            f'{{"rune":"{rune}","method":"{use.method}","params":{json.dumps(dict(use.params))}}}'
            for use in uses
        ]
        try:
            # `held_back`: never refused, since each check belongs to a call that is limited already. `access` limits
            # the checks of unknown runes.
            connection = self._link.connection()
            answers = await connection.call("checkrune", requests, deadline, caller, held_back=True)
        except RelayError as error:
            return [error] * len(uses)
        return list(map(replies.verdict_of, answers))

    async def list_peers(self, deadline: float, caller: str) -> list[Peer]:
        """Ask `listpeers`."""
        return replies.peers_of(await self._call("listpeers", "{}", deadline, caller))

    async def describe(self, deadline: float, caller: str) -> NodeInfo:
        """Ask `getinfo`."""
        return replies.info_of(await self._call("getinfo", "{}", deadline, caller))

    async def connect(self, address: PeerAddress, deadline: float) -> Connected:
        """Make a `connect`, on a connection of its own.

        lightningd takes up to a minute to find out that a peer cannot be reached, and the link closes a connection on
        which a request waits that long.
        """
        params = json.dumps(address.params)
        async with self._link.open_separate() as connection:
            [answer] = await connection.call("connect", [params], deadline)
        if isinstance(answer, RelayError):
            raise replies.unreachable("it did not answer in time") if answer.expired else answer
        return replies.result_of_connect(answer)

    async def disconnect(self, peer_id: NodeId, force: bool, deadline: float, caller: str) -> None:
        """Make a `disconnect`."""
        params = json.dumps({"id": peer_id.hex(), "force": force})
        await self._call("disconnect", params, deadline, caller)

    async def find(self, node_id: NodeId, deadline: float, caller: str) -> Announcement | None:
        """Ask `listnodes` for one node."""
        params = json.dumps({"id": node_id.hex()})
        return replies.announcement_of(await self._call("listnodes", params, deadline, caller))

    async def start_plugin(self, path: str) -> None:
        """Have lightningd run a plugin: `plugin start`. It returns when the plugin is initialised.

        Raises:
            RelayError: lightningd did not start it.
        """
        params = json.dumps({"subcommand": "start", "plugin": path})
        deadline = asyncio.get_running_loop().time() + self._reply_timeout
        await self._call("plugin", params, deadline)

    async def _call(self, method: str, params: str, deadline: float, caller: str = "") -> Reply:
        [answer] = await self._link.connection().call(method, [params], deadline, caller)
        if isinstance(answer, RelayError):
            raise answer
        replies.result_of(answer)
        return answer

    async def _greet(self, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + self._reply_timeout
        # `held_back`: never refused, since a busy node is not down.
        [answer] = await connection.call("getinfo", ["{}"], deadline, held_back=True)
        if isinstance(answer, RelayError):
            raise answer
        self._info = replies.info_of(answer)
