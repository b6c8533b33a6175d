"""Checks of where the gateway listens, and of where lightningd finds its script."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from custommsg_server.api.listen import explain, try_address
from custommsg_server.domain.address import Address
from custommsg_server.node.lightningd.attach import Paths
from custommsg_server.ops.doctor.finding import Finding

_PATH_MAX: Final = 107
"""Bytes of a unix socket's path (unix(7): 108 with the byte that ends it)."""


def check_address(name: str, address: Address, in_use: bool) -> Finding:
    """Check whether an address can be listened on.

    Args:
        name: the setting.
        address: where.
        in_use: a gateway of these settings runs, so that the address should be taken.
    """
    if address.path is not None and (finding := _long_path(name, address.path)):
        return finding
    try:
        try_address(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and in_use:
            return Finding(name, "ok", f"{address} is served, by the gateway that runs")
        what, advice = explain(error)
        return Finding(name, "fix", f"cannot listen on {address}: {what}", advice)
    return Finding(name, "ok", f"{address} is free")


def check_plugin(paths: Paths, other_view: bool) -> Iterator[Finding]:
    """Check what lightningd is to run.

    Args:
        paths: where it is.
        other_view: lightningd sees the folder under another path, so that we cannot see what it sees.
    """
    name = "plugin script"
    if finding := _long_path(name, paths.socket):
        yield finding
        return
    folder = paths.script.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="custommsg-doctor-") as probe:
            os.fchmod(probe.fileno(), 0o700)
            runs = os.access(probe.name, os.X_OK)
    except OSError as error:
        yield Finding(
            name,
            "fix",
            f"{folder} cannot be written: {error.strerror}",
            "Give it to this user, or set plugin_dir.",
        )
        return
    if not runs:
        yield Finding(
            name, "fix", f"nothing in {folder} can be executed (noexec)", "Set plugin_dir to another folder."
        )
    elif paths.script.exists() and not os.access(paths.script, os.X_OK):
        yield Finding(name, "fix", f"{paths.script} is not executable", f"chmod 0755 {paths.script}")
    elif other_view:
        yield Finding(
            name,
            "note",
            f"lightningd sees {paths.script_for_node} in its own file system",
            "There it needs /bin/sh and socat; `lightning-cli plugin start` with that path tells.",
        )
    else:
        with_what = "socat" if shutil.which("socat") else sys.executable
        there = "is there" if paths.script.exists() else "will be made"
        yield Finding(name, "ok", f"{paths.script} {there}, and will run {with_what}")


def _long_path(name: str, path: Path) -> Finding | None:
    size = len(os.fsencode(path))
    if size <= _PATH_MAX:
        return None
    return Finding(
        name,
        "fix",
        f"{path} has {size} bytes, and a unix socket's path has {_PATH_MAX} at most",
        "Use a folder with a shorter path.",
    )
