"""Containers as far as files, users and signals go: what the manifests promise is tried with real processes.

A container is a process in a mount and a PID namespace of its own. It sees its image, read-only, and its mounts; it
is PID 1, has its numeric user and groups, and no capability. The network is the machine's.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "chroot")


@dataclass(frozen=True)
class Image:
    """What a container is made of.

    Args:
        holds: what is in it: the path there, and the same here; "/" is all of it.
        env: its environment.
        entrypoint: what is put before the container's arguments.
        args: its arguments, if the container has none.
    """

    holds: Mapping[str, Path]
    env: Mapping[str, str]
    entrypoint: Sequence[str] = ()
    args: Sequence[str] = ()


def this_machine(entrypoint: Sequence[str] = ()) -> Image:
    """Return an image of this machine's programs, this Python and the project: enough to run our programs.

    This Python may be in a home directory where no other user gets; in the image it is at the same path, and free
    to read.
    """
    system = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/dev")
    ours = (sys.base_prefix, sys.prefix, str(PROJECT))
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    env = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return Image({name: Path(name) for name in (*system, *ours) if Path(name).exists()}, env, entrypoint)


@dataclass(frozen=True)
class Spec:
    """How a container runs.

    Args:
        image: what it is made of.
        args: its command line, after the image's entry point.
        env: its environment, beside the image's.
        user: the number of its user.
        group: of its group.
        groups: of the other groups that it is in.
        mounts: its volumes: the path in it, and where that is here.
    """

    image: Image
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: int = 0
    group: int = 0
    groups: Sequence[int] = ()
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return how a command runs in it: its environment, user and groups, and no capabilities."""
        # Runtimes set HOME so for a user that the image does not know.
        every = {"HOME": "/", **self.image.env, **self.env}
        env = [f"{name}={value}" for name, value in every.items()]
        groups = f"--groups={','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        limits = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        ids = [f"--reuid={self.user}", f"--regid={self.group}", groups]
        return ["/usr/bin/env", "-i", *env, "setpriv", *ids, *limits, "--", *command]

    def script(self, root: Path) -> str:
        """Return the shell script that sets it up in a folder, and becomes it."""
        lines = ["set -e"]
        if "/" not in self.image.holds:
            lines.append(f"mount -t tmpfs -o mode=755 tmpfs {root}")
        every = {**self.image.holds, **self.mounts}
        for path in sorted(every):  # a folder before what is in it
            here, there = every[path], f"{root}{path}".rstrip("/")
            lines.append(f"mkdir -p {there if here.is_dir() else f'$(dirname {there}); touch {there}'}")
            lines.append(f"mount --bind {here} {there}")
        lines.append(f"mkdir -p {root}/proc; mount -t proc proc {root}/proc")
        lines += [f"mount -o remount,bind,ro {root}{path}" for path in ("", *self.image.holds) if path != "/"]
        command = self.inside([*self.image.entrypoint, *(self.args or self.image.args)])
        return "\n".join([*lines, f"exec chroot {root} {shlex.join(command)}"])


class Running:
    """A container that runs, and the lines that it has printed.

    Args:
        spec: how.
        process: what holds it, and ends with its status.
    """

    def __init__(self, spec: Spec, process: Process) -> None:
        self.lines: list[str] = []
        self._spec = spec
        self._process = process
        self._changed = asyncio.Condition()
        self._ended = False

    async def read(self) -> None:
        """Collect what it prints, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def line(self, part: str) -> str:
        """Wait for a line that contains `part`, and return it."""

        def found() -> list[str]:
            return [line for line in self.lines if part in line]

        with suppress(TimeoutError):
            async with asyncio.timeout(40), self._changed:
                await self._changed.wait_for(lambda: found() or self._ended)
        assert found(), f"no {part!r} in what it printed:\n" + "\n".join(self.lines)
        return found()[0]

    async def run(self, *command: str) -> tuple[int, str]:
        """Run a command in it, as kubelet's exec does; return its status and what it printed."""
        enter = ["nsenter", f"--target={self._pid()}", "--mount", "--pid", "--root", "--wd=/"]
        process = await asyncio.create_subprocess_exec(
            *enter, *self._spec.inside(command), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode(errors="replace")

    async def ended(self) -> int:
        """Wait for its end, and return its status."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.returncode is None:
            os.kill(self._pid() or self._process.pid, signal.SIGKILL)

    def _pid(self) -> int:
        # The namespace's first process is the only child of the one that made the namespace.
        holder = self._process.pid
        return int(Path(f"/proc/{holder}/task/{holder}/children").read_text() or 0)


@asynccontextmanager
async def running(spec: Spec, root: Path) -> AsyncIterator[Running]:
    """Run a container for as long as the context lasts.

    Args:
        spec: how.
        root: an empty folder.
    """
    command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", spec.script(root)]
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    container = Running(spec, process)
    reading = asyncio.create_task(container.read())
    try:
        yield container
    finally:
        container.kill()
        await process.wait()
        await reading


@cache
def why_not() -> str:
    """Return why there can be no containers here; "" if there can."""
    if os.geteuid() != 0:
        return "needs root, to run processes as several users"
    tools = ("unshare", "nsenter", "setpriv", "mount", "chroot")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    command = ["unshare", "--mount", "--pid", "--fork", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else ""
