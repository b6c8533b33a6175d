"""lightningd runs the plugin script, and nobody else can use the socket."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from custommsg_server.domain.events import Arrival, Kind
from custommsg_server.node.lightningd import attach, guard
from custommsg_server.node.lightningd.attach import Attachment, Paths
from custommsg_server.node.lightningd.channel import DeclinedError
from custommsg_server.node.lightningd.manifest import Init, PluginOptions
from support.lightningd_end import LightningdEnd, token_in
from support.tools import missing

CALL = b'{"jsonrpc":"2.0","id":"cln:getmanifest#1","method":"getmanifest","params":{}}\n\n'


class Intake:
    """Stores arrivals; each future ends when the test asks for it."""

    is_full = False

    def __init__(self) -> None:
        self.given: list[tuple[Sequence[Arrival], asyncio.Future[bool]]] = []
        self.changed = asyncio.Event()

    def takes(self, message_type: int) -> bool:
        return True

    def append(self, arrivals: Sequence[Arrival], answer: Callable[[bool], None]) -> None:
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        kept.add_done_callback(lambda _: answer(kept.result()))
        self.given.append((arrivals, kept))
        self.changed.set()

    async def has_room(self) -> None:
        pass

    async def until(self, count: int) -> asyncio.Future[bool]:
        """Wait for so many appends; return the future of the last one."""
        while len(self.given) < count:
            self.changed.clear()
            await self.changed.wait()
        arrivals, kept = self.given[-1]
        assert [arrival.kind for arrival in arrivals] == [Kind.INTERRUPTION]
        return kept


def attachment(folder: Path, intake: Intake | None = None, make_parents: bool = True) -> Attachment:
    """Make an attachment to a node that never starts anything."""

    async def start(path: str) -> None:
        pass

    paths = Paths.within(folder, None)
    return Attachment(
        paths, make_parents, folder / "lightning-rpc", intake or Intake(), lambda: PluginOptions(), start
    )


@asynccontextmanager
async def listening(folder: Path, intake: Intake | None = None) -> AsyncIterator[Attachment]:
    """Run an attachment that listens."""
    running = attachment(folder, intake)
    task = asyncio.create_task(running.run())
    while not (folder / "plugin.sock").exists():
        await asyncio.sleep(0)
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run_script(folder: Path, path: str | None = None) -> Process:
    """Run the script as lightningd does."""
    env = {**os.environ, **({"PATH": path} if path else {})}
    return await asyncio.create_subprocess_exec(
        folder / "custommsg-attach", stdin=PIPE, stdout=PIPE, env=env, cwd="/"
    )


async def test_a_second_gateway_does_not_take_the_socket_away(short_path: Path) -> None:
    """It waits; the first gateway receives until it ends."""
    socket = short_path / "plugin.sock"
    async with listening(short_path):
        inode = socket.stat().st_ino
        second = asyncio.create_task(attachment(short_path).run())
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert socket.stat().st_ino == inode
    assert not socket.exists()


@pytest.mark.parametrize("program", ["socat", "python"])
@pytest.mark.parametrize("name", ["plain", "with a space, a comma: and 'quotes'"])
async def test_the_script_joins_both_ways_and_ends_with_either_side(
    short_path: Path, program: str, name: str, tmp_path: Path
) -> None:
    """With a shell and socat, as in lightningd's image, or with Python if there is no socat."""
    if program == "socat" and shutil.which("socat") is None:
        missing("needs socat")
    tools = tmp_path / "bin"
    tools.mkdir()
    if program == "socat":
        (tools / "socat").symlink_to(str(shutil.which("socat")))
    folder = short_path / name
    async with listening(folder):
        for ending in ("node", "gateway"):
            script = await run_script(folder, str(tools))
            assert script.stdin is not None
            assert script.stdout is not None
            script.stdin.write(CALL)
            async with asyncio.timeout(20):
                assert b'"hooks"' in await script.stdout.readuntil(b"\n\n")
                if ending == "node":
                    script.stdin.close()
                else:  # the plugin protocol's own way
                    script.stdin.write(b'{"jsonrpc":"2.0","method":"shutdown","params":{}}\n\n')
                assert await script.stdout.read() == b""
                await script.wait()


async def test_the_token_is_new_at_each_start_and_for_owner_and_group_only(short_path: Path) -> None:
    """Users who cannot read the script cannot use the socket; the token is on no command line."""
    tokens = set()
    for _ in range(2):
        async with listening(short_path):
            script = short_path / "custommsg-attach"
            assert stat.filemode(script.stat().st_mode) == "-rwxr-x---"
            token = token_in(script).decode().strip()
            assert re.fullmatch(r"[0-9a-f]{32}", token)
            tokens.add(token)
            process = await run_script(short_path)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(CALL)
            await process.stdout.readuntil(b"\n\n")
            assert token not in Path(f"/proc/{process.pid}/cmdline").read_text()
            process.stdin.close()
            await process.wait()
    assert len(tokens) == 2


@pytest.mark.parametrize("line", [b"", b"\n", b"0" * 32 + b"\n", b"x" * 33])
async def test_a_connection_without_the_token_is_closed(short_path: Path, line: bytes) -> None:
    """It gets no answer, and the log has its user and process."""
    with capture_logs() as logs:
        async with listening(short_path):
            reader, writer = await asyncio.open_unix_connection(short_path / "plugin.sock")
            writer.write(line + CALL)
            assert await reader.read() == b""
            writer.close()
    (refused,) = (one for one in logs if one["event"] == "connection to the plugin socket refused")
    assert (refused["uid"], refused["pid"]) == (os.geteuid(), os.getpid())


async def test_a_connection_that_says_nothing_is_closed(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can use a socket only for a limited time."""
    monkeypatch.setattr(guard, "TOKEN_TIME", 0.01)
    async with listening(short_path):
        reader, writer = await asyncio.open_unix_connection(short_path / "plugin.sock")
        assert await reader.read() == b""
        writer.close()


async def test_another_user_is_refused_even_with_the_token(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says which user connects; each user is logged once."""
    monkeypatch.setattr(attach, "users_allowed", lambda rpc_file: frozenset({os.geteuid() + 1}))
    with capture_logs() as logs:
        async with listening(short_path):
            for _ in range(3):
                reader, writer = await asyncio.open_unix_connection(short_path / "plugin.sock")
                writer.write(token_in(short_path / "custommsg-attach") + CALL)
                assert await read_to_the_end(reader) == b""
                writer.close()
    (refused,) = (one for one in logs if one["event"] == "connection to the plugin socket refused")
    assert refused["uid"] == os.geteuid()


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """Return all data; a connection that was closed with unread data ends with a reset."""
    try:
        return await reader.read()
    except (ConnectionResetError, BrokenPipeError):
        return b""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to connect as another user")
async def test_a_member_of_the_group_with_another_user_is_refused(short_path: Path) -> None:
    """Unless that user is the owner of lightningd's socket."""
    short_path.chmod(0o755)
    connect = (
        "import os, socket, sys\n"
        "os.setgroups([0]); os.setuid(4711)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n    s.sendall(open(sys.argv[2], 'rb').read()); said = s.recv(100)\n"
        "except OSError:\n    said = b''\n"
        "sys.stdout.buffer.write(said)\n"
    )
    call = short_path / "call"
    rpc_file = short_path / "lightning-rpc"
    async with listening(short_path):
        call.write_bytes(token_in(short_path / "custommsg-attach") + CALL)
        said = []
        for owner in (0, 4711):
            rpc_file.touch()
            os.chown(rpc_file, owner, 0)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                connect,
                short_path / "plugin.sock",
                call,
                stdin=DEVNULL,
                stdout=PIPE,
            )
            said.append((await process.communicate())[0])
            assert process.returncode == 0
    assert said[0] == b""
    assert said[1].startswith(b"{")


async def test_a_second_init_is_declined_while_the_first_channel_is_there(short_path: Path) -> None:
    """It gets a reason, and its messages are not stored; the first one continues."""
    intake = Intake()
    async with listening(short_path, intake) as running:
        first = await LightningdEnd.connect(short_path / "plugin.sock")
        (await intake.until(1)).set_result(True)
        second = await open_end(short_path)
        assert "attached" in (await second.init())["disable"]
        await second.call_hooks([b"\x9c\x41forged"])
        assert len(intake.given) == 1
        assert running.is_attached
        assert "attached" in (await first.init())["disable"]  # not even its own second one
        second.close()
        first.close()


async def test_a_killed_first_channel_is_found_at_once(short_path: Path) -> None:
    """A restarted lightningd may connect before the event loop has noticed the end of the previous one."""
    intake = Intake()
    async with listening(short_path, intake) as running:
        script = await run_script(short_path)
        assert script.stdin is not None
        assert script.stdout is not None
        first = LightningdEnd(script.stdout, script.stdin)
        assert not await first.init()
        (await intake.until(1)).set_result(True)
        await running.attached()
        second = await open_end(short_path)
        script.send_signal(signal.SIGKILL)
        while runs(script.pid):  # without a turn of the event loop
            pass
        assert not await second.init()
        (await intake.until(2)).set_result(True)
        await running.attached()
        second.close()
        first.close()
        await script.wait()


async def test_it_is_attached_when_the_interruption_is_stored(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lightningd does not wait for that; if the inbox fails, the interruption is stored later."""
    monkeypatch.setattr(attach, "RETRY", 0.001)
    intake = Intake()
    with capture_logs() as logs:
        async with listening(short_path, intake) as running:
            end = await LightningdEnd.connect(short_path / "plugin.sock")  # its init is answered
            (await intake.until(1)).set_result(False)
            kept = await intake.until(2)
            assert not running.is_attached
            assert not [one for one in logs if one["event"] == "lightningd is attached"]
            kept.set_result(True)
            await running.attached()
            assert running.is_attached
            (said,) = (one for one in logs if one["event"] == "lightningd is attached")
            assert (said["uid"], said["pid"]) == (os.geteuid(), os.getpid())
            end.close()


async def test_the_folder_of_a_node_that_is_not_there_is_not_made(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log names the folder; when lightningd has created it, the gateway creates its own in it."""
    monkeypatch.setattr(attach, "RETRY", 0.001)
    folder = short_path / "bitcoin" / "custommsg"
    with capture_logs() as logs:
        task = asyncio.create_task(attachment(folder, make_parents=False).run())
        while not logs:
            await asyncio.sleep(0)
        assert not folder.parent.exists()
        assert f"{folder.parent} does not exist" in logs[0]["why"]
        folder.parent.mkdir()
        async with asyncio.timeout(20):
            while not (folder / "plugin.sock").exists():
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def runs(pid: int) -> bool:
    """Return whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def open_end(folder: Path) -> LightningdEnd:
    """Connect, and send only the token."""
    reader, writer = await asyncio.open_unix_connection(folder / "plugin.sock")
    writer.write(token_in(folder / "custommsg-attach"))
    return LightningdEnd(reader, writer)


async def test_a_connection_that_comes_while_it_stops_is_closed(short_path: Path) -> None:
    """asyncio tells of a connection a moment after it has made the protocol; the rest is closed all the same."""
    guarded = attachment(short_path)
    late = guarded._make_guard()
    running = asyncio.create_task(guarded.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: late, sock=ours)
        assert transport.is_closing()
        theirs.settimeout(20)
        assert await asyncio.to_thread(theirs.recv, 1) == b""


async def test_a_channel_that_has_ended_is_not_attached(short_path: Path) -> None:
    """Else lightningd would be taken for attached, and never be attached again."""
    intake = Intake()
    attached = attachment(short_path, intake)
    channel = attached._admit(guard.Peer(pid=1, uid=os.geteuid()))
    with pytest.raises(DeclinedError, match="ended"):
        await attached._initialised(guard.Peer(1, os.geteuid()), channel, Init(short_path / "rpc", "regtest"))
    assert intake.given == []
