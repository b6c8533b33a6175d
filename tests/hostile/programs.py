"""The gateway and the node as real processes, restarted whenever they end, as a supervisor does."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trustme

from hostile.actor import PYTHONPATH
from hostile.record import Record
from support import processes

FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
ATTACHED, DETACHED = "lightningd is attached", "lightningd is detached"


class Supervised:
    """A command of `custommsg-server`, restarted whenever it ends.

    Args:
        record: records if it ends without being killed.
        log: a copy of its stderr.
        arguments: the command line.
        first: Python code to run in the process before the command.
        env: more environment variables.
    """

    def __init__(
        self, record: Record, log: Path, *arguments: str, first: str = "", env: dict[str, str] | None = None
    ) -> None:
        self._record = record
        self._log = log
        self._arguments = arguments
        self._first = first
        self._env = {"PYTHONPATH": PYTHONPATH, **(env or {})}
        self._task: asyncio.Task[None] | None = None
        self._killed = False
        self.process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Start it, and restart it whenever it ends."""
        self._task = asyncio.create_task(self._live())

    def kill(self) -> bool:
        """Kill it with SIGKILL; return whether it ran."""
        if self.process is None or self.process.returncode is not None:
            return False
        self._killed = True
        self.process.kill()
        return True

    def check(self) -> None:
        """Raise what keeps it from being started again."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """End it for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def begins(self, now: float) -> None:
        """Record a start."""

    def says(self, line: str, now: float) -> None:
        """Process a line of its log."""

    async def _live(self) -> None:
        while True:
            self.begins(time.monotonic())
            async with processes.server(*self._arguments, first=self._first, env=self._env) as program:
                self.process = program.process
                listening = asyncio.create_task(self._listen(program))
                status = await program.process.wait()
                listening.cancel()
                if not self._killed:
                    self._record.broken.append(
                        f"{self._arguments[0]} ended by itself with status {status}: "
                        + " ".join(program.lines[-3:])
                    )
                    await asyncio.sleep(1)
                self._killed = False

    async def _listen(self, program: processes.Program) -> None:
        done = 0
        with self._log.open("a") as log:
            while True:
                async with program.changed:
                    while len(program.lines) == done:
                        await program.changed.wait()
                    new, done = program.lines[done:], len(program.lines)
                now = time.monotonic()
                for line in new:
                    log.write(f"{now:.3f} {line}")
                    self.says(line, now)
                log.flush()


class Node(Supervised):
    """The embedded node; port and key stay the same after restarts."""

    def __init__(self, record: Record, folder: Path, journal: Path, throttle: float) -> None:
        self.port = free_port()
        self.journal = journal
        self.rpc_file = folder / "node" / "regtest" / "lightning-rpc"
        first = (
            "import sys; sys.stdout = sys.stderr; from pathlib import Path; from hostile import node;"
            f" node.install(Path({str(journal)!r}), bytes.fromhex({record.peer_id.hex()!r}), {throttle!r})"
        )
        arguments = ("devnode", "--lightning-dir", str(folder / "node"), "--listen", f"127.0.0.1:{self.port}")
        super().__init__(record, folder / "node.log", *arguments, first=first)

    def says(self, line: str, now: float) -> None:
        """Record messages that would have crashed a real lightningd."""
        if "real lightningd would have" in line:
            self._record.broken.append(line.strip())


class Gateway(Supervised):
    """The gateway; port and inbox stay the same after restarts."""

    def __init__(
        self, record: Record, folder: Path, data: Path, rpc_file: Path, clock: Path | None, **settings: Any
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.certificates = _certificates(folder)
        self.idle = self.peak = 0
        """Bytes of memory: after the first start, and the maximum over all restarts."""
        arguments = ["serve", "--listen", self.address, "--rpc-file", str(rpc_file), "--data-dir", str(data)]
        arguments += ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]
        for name, value in settings.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        wrong_clock = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # otherwise waiting for a condition takes up to two seconds longer
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        env = wrong_clock if clock else {}
        self.attached = asyncio.Event()
        super().__init__(record, folder / "gateway.log", *arguments, env=env)

    def begins(self, now: float) -> None:
        """Record that lightningd has to attach."""
        self.attached.clear()
        self._record.attaches.append(now)

    def says(self, line: str, now: float) -> None:
        """Record when lightningd attaches and detaches, and count warnings."""
        if ATTACHED in line:
            self.attached.set()
        elif DETACHED in line:
            self.attached.clear()
            self._record.attaches.append(now)
        try:
            said = json.loads(line)
        except ValueError:
            return
        if said.get("level") in ("error", "critical") or "exception" in said:
            self._record.faults[f"log: {said.get('event')}"] += 1

    def weigh(self) -> None:
        """Measure the memory of the process (proc(5): VmHWM)."""
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
            if found:
                self.peak = max(self.peak, int(found[1]) * 1024)


def _certificates(folder: Path) -> Path:
    """Write the server's certificate and its key; return the CA's file."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = ca.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "server.pem"), append=True)
    return folder / "ca.pem"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a small file system on a folder; return whether that was possible."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    is_small = bool(mount) and not subprocess.run(command, capture_output=True, check=False).returncode
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", str(folder)], check=True)


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
