"""The documents: the commands in README.md work, and everything that the pages name exists."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from custommsg_server import app
from custommsg_testing import gateway as testing_gateway
from custommsg_testing.gateway import GatewayWithPeer
from support import nodes
from support.gateways import settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TRY, REAL = (
    README.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in ("Try it", "Beside a real node")
)
BIN = Path(sys.executable).parent
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")} - set(ROOT.glob(".*/**/*.md"))
)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def running(short_path: Path) -> AsyncIterator[GatewayWithPeer]:
    """Run the program of `make run` on a free port; the peer sends everything back."""

    async def echo(peer: testing_gateway.devnode.DevNode, received: testing_gateway.devnode.Received) -> None:
        await peer.send(received.peer_id, received.message)

    async with testing_gateway.run(short_path, on_message=echo) as running:
        yield running


async def shell(script: str, address: str, **variables: str) -> str:
    """Run the commands of a page, with this environment's programs and a gateway's address; return the output."""
    script = script.replace(".venv/bin", str(BIN)).replace("127.0.0.1:9737", address)
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "CUSTOMMSG_ADDRESS": address, **variables}
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, stdout=PIPE, stderr=PIPE, env=environment
    )
    out, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, ""), script
    return out.decode()


async def test_the_commands_to_try_it_print_what_they_should(running: GatewayWithPeer) -> None:
    """One after the other in one shell."""
    make, *commands = blocks(TRY, "sh")
    assert re.findall(r"^make (\w+)", make, re.MULTILINE) == ["demo", "run"]
    out = await shell("\n".join(commands), running.address)
    assert out.count("Message sent to connectd for delivery") == 2, "from the command line and from grpcurl"
    assert re.search(r"40001 +5 +hello$", out, re.MULTILINE), "what the peer sent back"


async def test_the_program_to_try_it_prints_what_was_sent_back(
    running: GatewayWithPeer, short_path: Path
) -> None:
    """Run as the page says."""
    [program] = blocks(TRY, "python")
    (short_path / "hello.py").write_text(program.replace("127.0.0.1:9737", running.address))
    out = await shell(f".venv/bin/python -W error {short_path}/hello.py", running.address)
    assert out == "40001 b'hello'\n"


async def test_the_rune_permits_what_is_sent_with_it(short_path: Path) -> None:
    """With the restrictions of the page; another type is not permitted."""
    make, send = blocks(REAL, "sh")[1].splitlines()
    found = re.search(r"restrictions='(.*)'\)? \|", make)
    assert found is not None
    async with (
        nodes.embedded(short_path) as node,
        app.running(settings(node.rpc_file, insecure=False)) as gateway,
    ):
        await gateway.ready()
        rune = (await node.call("createrune", restrictions=json.loads(found[1])))["rune"]
        peer = node.peer.id.hex()
        assert "Sent: type 37913" in await shell(send, str(gateway.addresses[0]), RUNE=rune, PEER=peer)
        assert (await node.peer.received.next()).message.endswith(b"hello")
        refused = send.replace("37913", "40001") + " 2>&1 || true"
        assert "NOT_PERMITTED" in await shell(refused, str(gateway.addresses[0]), RUNE=rune, PEER=peer)


async def test_the_gateways_commands_take_the_flags_that_are_printed(short_path: Path) -> None:
    """`doctor` reports that there is no lightningd; `serve` only prints its help."""
    lines = blocks(REAL, "sh")[0].replace(" --network", " --help --network").splitlines()
    doctor, serve = (line for line in lines if line.startswith("custommsg-server"))
    home = str(short_path)
    report = await shell(f"{doctor.partition('#')[0]} || test $? = 1", "127.0.0.1:0", HOME=home)
    assert "lightning-rpc does not exist" in report
    assert "--network" in await shell(serve, "127.0.0.1:0", HOME=home)


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """Links to files and headings, targets of make, and in CONTRIBUTING.md the modules."""
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]*)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    places = [ROOT, ROOT / "server/custommsg_server", ROOT / "client/custommsg"]
    if page.name == "CONTRIBUTING.md":
        for name in re.findall(r"`([\w/]+(?:\.py|\.proto|/))`", text):
            assert any((place / name).exists() for place in places), name
