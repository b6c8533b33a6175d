"""The folder that reckless, Core Lightning's plugin manager, installs."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import grpc
import pytest

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from support import nodes
from support.containers import PROJECT
from support.every_rpc import until_serving

NAME = "custommsg-plugin"
FOLDER = PROJECT / NAME


@pytest.fixture
def installed(short_path: Path) -> Path:
    """Install it as `reckless install` does: the folder copied, and a script that runs it in an environment."""
    staged = short_path / "reckless" / NAME / "source" / NAME
    shutil.copytree(FOLDER, staged)
    script = short_path / "reckless" / NAME / f"{NAME}.py"
    script.write_text(
        f"#!{sys.executable}\nimport sys, runpy\n"
        f"sys.path.append({str(staged)!r})\nsys.path.remove({str(script.parent)!r})\n"
        f"runpy.run_module({NAME!r}, {{}}, '__main__')\n"
    )
    script.chmod(0o755)
    return script


def test_reckless_finds_what_it_looks_for() -> None:
    """A folder at the top with the plugin's name, a program of that name, and what to install for it."""
    assert (FOLDER / f"{NAME}.py").stat().st_mode & 0o111
    version = tomllib.loads((PROJECT / "server/pyproject.toml").read_text())["project"]["version"]
    assert (FOLDER / "requirements.txt").read_text().split() == [f"custommsg-server[uvloop]=={version}"]


async def test_what_it_installs_is_the_gateway(installed: Path, short_path: Path) -> None:
    """A node starts it as its plugin, with the node's options as settings, and it sends a message."""
    address = f"unix:{short_path}/gateway.sock"
    options = {"custommsg-listen": address, "custommsg-insecure": "true"}
    async with nodes.embedded(short_path) as node:
        await node.call("plugin", subcommand="start", plugin=str(installed), **options)
        async with grpc.aio.insecure_channel(address) as channel:
            await until_serving(channel)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            request = pb.SendCustomMsgRequest(
                message=pb.OutboundMsg(peer_id=node.peer.id, msg_hex="9c41" + b"hi".hex())
            )
            await stub.SendCustomMsg(request)
            assert (await node.peer.received.next()).message == b"\x9c\x41hi"
        await node.call("plugin", subcommand="stop", plugin=installed.name)
