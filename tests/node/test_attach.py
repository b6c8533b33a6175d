"""Having lightningd run the script that leads to us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from custommsg_server.domain.events import Arrival
from custommsg_server.node.lightningd.attach import Attachment, Paths
from custommsg_server.node.lightningd.manifest import PluginOptions


class Nothing:
    """An intake that takes nothing."""

    is_full = False

    def takes(self, message_type: int) -> bool:
        return False

    def append(self, arrivals: Sequence[Arrival]) -> asyncio.Future[bool]:
        raise AssertionError("nothing was to be taken")

    async def has_room(self) -> None:
        pass


def attachment(folder: Path) -> Attachment:
    """Make an attachment to a node that never starts anything."""

    async def start(path: str) -> None:
        pass

    return Attachment(Paths.within(folder, None), Nothing(), PluginOptions, start)


async def test_a_second_gateway_does_not_take_the_socket_away(short_path: Path) -> None:
    """It waits: the first one keeps receiving, and leaves the folder when it ends."""
    socket = short_path / "plugin.sock"
    first = asyncio.create_task(attachment(short_path).run())
    while not socket.exists():
        await asyncio.sleep(0)
    inode = socket.stat().st_ino
    second = asyncio.create_task(attachment(short_path).run())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert socket.stat().st_ino == inode
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not socket.exists()
