"""Ask a lightningd once who it is, and say in words for a person what keeps it from answering."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from custommsg_server.domain.errors import RelayError
from custommsg_server.node.lightningd.link import LinkOptions, open_socket
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import NodeInfo


class AskError(Exception):
    """It did not answer.

    Args:
        what: what is the matter.
        advice: what to do.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


async def ask(rpc_file: Path, seconds: float) -> NodeInfo:
    """Return what a lightningd says of itself.

    Args:
        rpc_file: its JSON-RPC socket.
        seconds: how long it may take.

    Raises:
        AskError: it does not answer.
    """
    await asyncio.to_thread(_try_socket, rpc_file)
    node = Lightningd(rpc_file, LinkOptions(probe_interval=seconds, reply_timeout=seconds))
    up = asyncio.Event()
    node.watch(lambda is_up: up.set() if is_up else None)
    running = asyncio.create_task(node.run())
    try:
        async with asyncio.timeout(seconds):
            await up.wait()
    except TimeoutError:
        raise AskError(f"{rpc_file} takes a connection, but does not answer getinfo", _ANSWER) from None
    finally:
        running.cancel()
        await asyncio.wait([running])
    if node.info is None:
        raise AskError(f"{rpc_file} answers nothing of use to getinfo", _ANSWER)
    return node.info


_ANSWER = "See whether this is lightningd's socket, and whether `lightning-cli getinfo` answers."


def _try_socket(rpc_file: Path) -> None:
    try:
        mode = rpc_file.stat().st_mode
        if not stat.S_ISSOCK(mode):
            raise AskError(
                f"{rpc_file} is no socket", "Set rpc_file to lightningd's socket: .../lightning-rpc."
            )
        open_socket(rpc_file).close()
    except FileNotFoundError:
        raise AskError(
            f"{rpc_file} does not exist",
            "Start lightningd, or set rpc_file (or lightning_dir and network) to where its socket is.",
        ) from None
    except PermissionError:
        raise AskError(
            f"{rpc_file} may not be opened by this user",
            "Run as lightningd's user, or start lightningd with --rpc-file-mode=0660 and share its group.",
        ) from None
    except ConnectionRefusedError:
        raise AskError(
            f"nobody listens on {rpc_file}: it was left behind", "Start lightningd; it makes the socket anew."
        ) from None
    except (OSError, RelayError) as error:
        raise AskError(f"{rpc_file} cannot be opened: {error}", _ANSWER) from None
