"""Makes executable plugins for the embedded node, each with the behaviour that a test needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MANIFEST: dict[str, Any] = {
    "options": [],
    "rpcmethods": [{"name": "seen", "usage": ""}],
    "hooks": [{"name": "custommsg"}],
    "subscriptions": ["connect", "disconnect"],
    "dynamic": True,
    "nonnumericids": True,
    "custommessages": [],
}
"""It answers the hook with continue, and `seen` with all that it was told, in order."""

_SOURCE = """#!{python}
import json, os, sys

manifest = {manifest!r}
seen = []

def answer(id, **fields):
    sys.stdout.write(json.dumps(dict(jsonrpc="2.0", id=id, **fields)) + "\\n\\n")
    sys.stdout.flush()

def on_init(id, params):
    answer(id, result={{}})

def on_custommsg(id, params):
    answer(id, result={{"result": "continue"}})

{extra}

for line in sys.stdin:
    if not line.strip():
        continue
    call = json.loads(line)
    method, id = call["method"], call.get("id")
    if method == "seen":
        answer(id, result=dict(seen=seen, environment=dict(os.environ), directory=os.getcwd()))
        continue
    seen.append(call)
    if method == "getmanifest":
        answer(id, result=manifest)
    elif method == "init":
        on_init(id, call["params"])
    elif method == "custommsg" and id is not None:
        on_custommsg(id, call["params"])
    elif method == "shutdown":
        sys.exit(0)
"""


def write_plugin(directory: Path, name: str = "plugin.py", *, extra: str = "", **manifest: Any) -> Path:
    """Write an executable plugin.

    Args:
        directory: where.
        name: of the file.
        extra: Python that replaces `on_init(id, params)` or `on_custommsg(id, params)`, or does more.
        manifest: fields that differ from MANIFEST.
    """
    path = directory / name
    path.write_text(_SOURCE.format(python=sys.executable, manifest={**MANIFEST, **manifest}, extra=extra))
    path.chmod(0o755)
    return path


def write_script(directory: Path, source: str, name: str = "plugin.sh") -> Path:
    """Write an executable shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{source}\n")
    path.chmod(0o755)
    return path
