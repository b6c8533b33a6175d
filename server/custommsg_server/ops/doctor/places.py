"""Checks the addresses to listen on, and the plugin script."""

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
"""The maximum size of a unix socket's path in bytes (unix(7): 108 with the final zero byte)."""


def check_address(name: str, address: Address, in_use: bool) -> Finding:
    """Check whether an address can be listened on.

    Args:
        name: the setting.
        address: where.
        in_use: a gateway with these settings runs, so the address should be in use.
    """
    if address.path is not None and (finding := _long_path(name, address.path)):
        return finding
    try:
        try_address(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and in_use:
            return Finding(name, "ok", f"{address} is used by the running gateway")
        what, advice = explain(error)
        return Finding(name, "fix", f"cannot listen on {address}: {what}", advice)
    return Finding(name, "ok", f"{address} is free")


def check_plugin(paths: Paths, other_view: bool) -> Iterator[Finding]:
    """Check the plugin script that lightningd runs.

    Args:
        paths: its paths.
        other_view: lightningd has another path for the folder, which cannot be checked here.
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
            "Let this user write to it, or set another plugin_dir.",
        )
        return
    if not runs:
        yield Finding(
            name, "fix", f"files in {folder} cannot be executed (noexec)", "Set plugin_dir to another folder."
        )
    elif paths.script.exists() and not os.access(paths.script, os.X_OK):
        yield Finding(name, "fix", f"{paths.script} is not executable", f"chmod 0755 {paths.script}")
    elif other_view:
        yield Finding(
            name,
            "note",
            f"lightningd runs {paths.script_for_node}, which cannot be checked from here",
            "It needs /bin/sh and socat there. To test it: `lightning-cli plugin start` with that path.",
        )
    else:
        with_what = "socat" if shutil.which("socat") else sys.executable
        there = "exists" if paths.script.exists() else "will be created"
        yield Finding(name, "ok", f"{paths.script} {there}, and will run {with_what}")


def _long_path(name: str, path: Path) -> Finding | None:
    size = len(os.fsencode(path))
    if size <= _PATH_MAX:
        return None
    return Finding(
        name,
        "fix",
        f"{path} has {size} bytes; the path of a unix socket may have {_PATH_MAX} at most",
        "Use a folder with a shorter path.",
    )
