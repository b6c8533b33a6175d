"""Programs for LND in Go: they parse their macaroon, and lncli adds a caveat to it for each call."""

from __future__ import annotations

import sys
from pathlib import Path

from . import lnd
from .programs import HERE
from .rig import needs


@needs("go/bin/.ready")
async def test_lncli(short_path: Path) -> None:
    """LND's own command line."""
    program = (sys.executable, HERE / "lncli.py", HERE / "go/bin/lncli")
    calls = {
        "send": "`sendcustom`",
        "subscribe": "`subscribecustom`",
        "info": "`getinfo`",
        "peers": "`listpeers`",
        "connect": "`connect`",
        "disconnect": "`disconnect`",
        "node": "`getnodeinfo`",
        "version": "`version`",
        "state": "`state`",
        "channels": "`listchannels`",
        "foreign": "",
    }
    await lnd.check("lncli 0.20.0-beta", short_path, program, calls, hex_digits=False)


@needs("go/bin/.ready")
async def test_lndclient(short_path: Path) -> None:
    """The Go package on which loop, pool and others are built."""
    calls = {
        "send": "`SendCustomMessage`",
        "subscribe": "`SubscribeCustomMessages`",
        "info": "`GetInfo`",
        "peers": "`ListPeers`",
        "connect": "`Connect`",
        "node": "`GetNodeInfo`",
        "version": "`GetVersion`",
        "state": "`GetState`",
        "channels": "`ListChannels`",
    }
    program = (HERE / "go/bin/custommsg-go-clients",)
    await lnd.check("lndclient 0.20.0-1", short_path, program, calls, hex_digits=False)
