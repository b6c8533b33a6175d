"""The README files of the client and the command: what they print is what happens."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import PEER, ScriptedGateway, queue, reply
from support.command import Run
from support.feed import Feed, connected, interruption, message, position

ROOT = Path(__file__).parents[2]
CLIENT, CLI = (ROOT / name / "README.md" for name in ("client", "cli"))
PEERS = [pb.Peer(peer_id=PEER, peer_id_hex=PEER.hex(), connected=True, address="127.0.0.1:9735")]
EVENTS = [
    interruption(1),
    connected(2),
    message(3, type=40001, payload=b"hello"),
    message(4, type=40003, payload=b"\x00\xff"),
]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def sessions(page: Path) -> list[tuple[str, str]]:
    """Return the commands that a page shows, and what they print."""
    shown = "".join(blocks(page, "console"))
    return [(one[0], one[1]) for one in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE)]


@pytest.fixture
def node_with_a_peer(gateway: ScriptedGateway) -> ScriptedGateway:
    """Let the scripted gateway answer like one whose node has a peer that has sent something."""
    gateway.answers = {
        pb.ListPeersRequest: reply(pb.ListPeersResponse(peers=PEERS)),
        pb.SendCustomMsgRequest: queue,
        pb.ListEventsRequest: reply(pb.ListEventsResponse(events=EVENTS)),
    }
    feed = Feed(EVENTS)
    gateway.stream, gateway.ack = feed, feed.ack
    return gateway


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Print local times as UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("number", range(len(blocks(CLIENT, "python"))))
async def test_the_programs_of_the_clients_readme_run(
    node_with_a_peer: ScriptedGateway, number: int, tmp_path: Path
) -> None:
    """As they are printed, but for the gateway's address."""
    program = blocks(CLIENT, "python")[number]
    assert "127.0.0.1:9737" in program
    (tmp_path / "program.py").write_text(program.replace("127.0.0.1:9737", node_with_a_peer.address))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(tmp_path / "program.py")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = (text.decode() for text in await process.communicate())
    assert process.returncode == 0, err
    assert "Traceback" not in err
    if "print(sent.status)" in program:
        assert out == "Message sent to connectd for delivery\n"
    if "messages.ack" in program or "list_events" in program:
        assert "b'hello'" in out


@pytest.mark.usefixtures("in_utc", "node_with_a_peer")
@pytest.mark.parametrize(("command", "output"), sessions(CLI))
async def test_the_commands_of_the_readme_print_what_it_shows(cli: Run, command: str, output: str) -> None:
    """Each line, to the last character."""
    program, *arguments = shlex.split(command)
    assert program == "custommsg"
    done = await cli(*arguments)
    assert (done.status, done.out) == (0, output)


def test_both_pages_have_something_to_run() -> None:
    """A change of the pages' form must not leave them untested."""
    assert len(blocks(CLIENT, "python")) >= 4
    assert len(sessions(CLI)) >= 5
    assert position(3) in CLI.read_text()
