"""The plugin channel on stdin and stdout: for a gateway that lightningd has started itself."""

from __future__ import annotations

import asyncio
import os
import stat
import sys

from custommsg_server.node.lightningd.channel import Channel


def is_started_by_node() -> bool:
    """Whether stdin and stdout lead to another program, as lightningd leads them."""
    modes = [os.fstat(number).st_mode for number in (0, 1)]
    return all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


async def open_stdio(channel: Channel) -> None:
    """Speak the plugin protocol on stdin and stdout, and keep everything else off them.

    Whatever else in this process prints to stdout reaches stderr from now on: a stray line on the channel
    could be taken for an answer.
    """
    loop = asyncio.get_running_loop()
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, out)
    channel.write_to(writer)  # before anything is read, since what is read is answered
    await loop.connect_read_pipe(lambda: channel, os.fdopen(os.dup(0), "rb", buffering=0))
