"""Each distribution alone in an empty environment: what it can do, and what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

from support.distributions import find
from support.environments import Environment, install

MISSING = "ModuleNotFoundError: No module named "


def installed(name: str, folder: Path) -> Environment:
    """Install one of our distributions by its name."""
    distribution = find(name)
    assert distribution is not None
    return install(distribution, folder)


def test_the_client_is_a_library_without_a_command(tmp_path: Path) -> None:
    """`pip install custommsg` installs no command that could not run."""
    environment = installed("custommsg", tmp_path)
    assert environment.commands == []
    assert (
        environment.python("from custommsg import aio, sync; print(aio.connect, sync.connect)").count(
            "function"
        )
        == 2
    )
    for other in ("custommsg_cli", "custommsg_server", "custommsg_testing", "cyclopts", "pyln"):
        assert f"{MISSING}'{other}'" in environment.python(f"import {other}")


def test_the_command_line_is_a_client_that_runs(tmp_path: Path) -> None:
    """`pip install custommsg-cli` installs `custommsg`, and no server."""
    environment = installed("custommsg-cli", tmp_path)
    assert environment.commands == ["custommsg"]
    done = environment.run("custommsg", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"send", "listen"} <= set(done.stdout.split())
    assert f"{MISSING}'custommsg_server'" in environment.python("import custommsg_server")


def test_the_server_runs_without_the_testing_kit(tmp_path: Path) -> None:
    """`pip install custommsg-server` installs the gateway; what is for trying out and for tests is not there."""
    environment = installed("custommsg-server", tmp_path)
    assert environment.commands == ["custommsg-server"]
    done = environment.run("custommsg-server", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    words = set(done.stdout.split())
    assert {"serve", "doctor", "certs", "health", "plugin"} <= words
    assert words.isdisjoint({"try", "devnode"})
    assert f"{MISSING}'custommsg_testing'" in environment.python("import custommsg_testing")


def test_the_testing_kit_adds_its_commands_to_the_server(tmp_path: Path) -> None:
    """`pip install custommsg-testing` brings the server, and `try` and `devnode` beside its commands."""
    environment = installed("custommsg-testing", tmp_path)
    assert environment.commands == ["custommsg-server"]
    done = environment.run("custommsg-server", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"serve", "try", "devnode"} <= set(done.stdout.split())


NODE = """
import asyncio, json, tempfile
from pyln.client import LightningRpc
from custommsg_testing import devnode

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with devnode.run(folder) as node:
            info = await asyncio.to_thread(LightningRpc(str(node.rpc_file)).getinfo)
            print(json.dumps([info["id"], node.id.hex()]))

asyncio.run(main())
"""


FIXTURES = """
from custommsg import sync

def test_a_message(gateway):
    with sync.connect(gateway.address) as client:
        client.send(gateway.peer.id, type=40001, payload=b"hello")
    assert gateway.peer.receive().payload == b"hello"
"""


def test_the_testing_kit_runs_nodes_and_tests(tmp_path: Path) -> None:
    """Its node starts, and pytest finds its fixtures, with what the testing kit requires and no more."""
    environment = installed("custommsg-testing", tmp_path)
    told, expected = json.loads(environment.python(NODE))
    assert told == expected
    (environment.folder / "test_it.py").write_text(FIXTURES)
    done = environment.run("python", "-m", "pytest", "-q", "test_it.py")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
