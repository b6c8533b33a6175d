"""lncli, LND's command line, one process for each call: `lncli.py LNCLI HOST:PORT CERTIFICATE MACAROON_FILE`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import driver

PROGRAM, ADDRESS, CERTIFICATE, MACAROON = sys.argv[1:]
COMMAND = (
    PROGRAM,
    f"--rpcserver={ADDRESS}",
    f"--tlscertpath={CERTIFICATE}",
    f"--macaroonpath={MACAROON}",
    "--network=regtest",
)
RECEIVED = re.compile(r"Received from peer (\w+): type=(\d+), data=(\w*)\n")
FAILED = re.compile(r"code = (\w+) desc = (.*)")


class FailedError(Exception):
    """lncli has failed; the arguments are a gRPC code and a text."""


def run(*arguments: str) -> Any:
    """Run a command; return its output as JSON."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        found = FAILED.search(done.stderr)
        code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", found[1]).upper() if found else "its own"
        raise FailedError(code, found[2] if found else done.stderr)
    return json.loads(done.stdout or "{}")


def outcome(make: Any) -> Any:
    """Wrap a call, so that it returns how it failed."""

    def call(**given: Any) -> dict[str, Any]:
        try:
            return {"text": str(make(**given) or "")}
        except FailedError as failed:
            code, text = failed.args
            return {"code": code, "text": text}

    return call


def send(peer: str, message: str) -> None:
    """Send a message."""
    run("sendcustom", f"--peer={peer}", f"--type={int(message[:4], 16)}", "--data", message[4:])


def subscribe() -> None:
    """Forward what arrives."""
    process = subprocess.Popen([*COMMAND, "subscribecustom"], stdout=subprocess.PIPE, text=True)

    def received() -> Iterator[tuple[bytes, bytes]]:
        assert process.stdout is not None
        for line in process.stdout:
            found = RECEIVED.fullmatch(line)
            assert found, line
            yield bytes.fromhex(found[1]), int(found[2]).to_bytes(2, "big") + bytes.fromhex(found[3])

    driver.forward(received())


def info() -> str:
    """Ask who the node is."""
    found = run("getinfo")
    return f"{found['alias']} {found['identity_pubkey']} {found['num_peers']}"


def node(peer: str) -> str:
    """Ask about a node."""
    found = run("getnodeinfo", f"--pub_key={peer}")["node"]
    return f"{found['alias']} {found['addresses'][0]['addr']}"


calls: dict[str, Any] = {
    "send": send,
    "subscribe": subscribe,
    "info": info,
    "peers": lambda: " ".join(peer["pub_key"] for peer in run("listpeers")["peers"]),
    "connect": lambda peer, host: run("connect", f"{peer}@{host}"),
    "disconnect": lambda peer: run("disconnect", peer),
    "node": node,
    "version": lambda: run("version")["lnd"]["version"],
    "state": lambda: run("state")["state"],
    "channels": lambda: run("listchannels"),
}
driver.serve({name: outcome(make) for name, make in calls.items()})
