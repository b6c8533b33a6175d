"""Asks a lightningd once for its description; if it does not answer, says why and what to do."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from custommsg_server.domain.errors import RelayError
from custommsg_server.node.lightningd.link import LinkOptions, open_socket
from custommsg_server.node.lightningd.node import Lightningd
from custommsg_server.node.port import NodeInfo


class AskError(Exception):
    """lightningd did not answer; `what` is wrong, and `advice` says what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


async def ask(rpc_file: Path, seconds: float) -> NodeInfo:
    """Return the description of a lightningd.

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
        raise AskError(f"{rpc_file} accepts a connection, but does not answer getinfo", _ANSWER) from None
    finally:
        running.cancel()
        await asyncio.wait([running])
    if node.info is None:
        raise AskError(f"the answer to getinfo at {rpc_file} is invalid", _ANSWER)
    return node.info


_ANSWER = "Check that this is lightningd's socket, and that `lightning-cli getinfo` answers."


def _try_socket(rpc_file: Path) -> None:
    try:
        mode = rpc_file.stat().st_mode
        if not stat.S_ISSOCK(mode):
            raise AskError(
                f"{rpc_file} is not a socket", "Set rpc_file to lightningd's socket: .../lightning-rpc."
            )
        open_socket(rpc_file).close()
    except FileNotFoundError:
        raise AskError(
            f"{rpc_file} does not exist",
            "Start lightningd, or set rpc_file (or lightning_dir and network) to its socket.",
        ) from None
    except PermissionError:
        raise AskError(
            f"this user may not open {rpc_file}",
            "Run as lightningd's user, or start lightningd with --rpc-file-mode=0660 and share its group.",
        ) from None
    except ConnectionRefusedError:
        raise AskError(
            f"no process listens on {rpc_file}: it is a leftover of an earlier one",
            "Start lightningd; it creates a new socket.",
        ) from None
    except (OSError, RelayError) as error:
        raise AskError(f"{rpc_file} cannot be opened: {error}", _ANSWER) from None
