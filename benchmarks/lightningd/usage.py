"""CPU time of a server and of its node, with all their processes, and when they have come to rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from benchmarks.usage import usage_of

IDLE: Final = 0.03
"""The part of a core below which a server and its node count as idle."""
LOOK: Final = 0.5
"""Seconds between two looks."""
PATIENCE: Final = 180.0
"""Seconds after which nobody waits for that any more."""


@dataclass(frozen=True, slots=True)
class Used:
    """What two sets of processes have used until now."""

    server_s: float = 0.0
    node_s: float = 0.0
    server_mb: float = 0.0

    @property
    def together_s(self) -> float:
        """CPU seconds of both."""
        return self.server_s + self.node_s


@dataclass(frozen=True, slots=True)
class Watched:
    """A server and its node.

    Args:
        server: the id of the server's process; None where there is none, or where lightningd has started it.
        node: the id of lightningd; None where there is none.
        marker: what stands in the command line of the server's processes that lightningd has started.
    """

    server: int | None
    node: int | None
    marker: str

    def used(self) -> Used:
        """Look at all processes of both."""
        server, node = _trees(self.server, self.node)
        theirs = {pid for pid in node - {self.node} if self.marker and self.marker in _command(pid)}
        server_s, server_mb = _sum(server | theirs)
        node_s, _ = _sum(node - theirs)
        return Used(server_s, node_s, server_mb)


@dataclass(frozen=True, slots=True)
class Rest:
    """What was left to do when the load had ended."""

    used: Used
    """Everything until both were idle."""
    seconds: float
    """How long that took."""
    idle: bool
    """Whether they ever were."""


def until_idle(watched: Watched, meanwhile: Callable[[], None]) -> Rest:
    """Wait until a server and its node are idle."""
    start, before = monotonic(), watched.used()
    while True:
        sleep(LOOK)
        meanwhile()
        now = watched.used()
        passed = monotonic() - start
        if now.together_s - before.together_s < IDLE * LOOK:
            return Rest(now, passed - LOOK, idle=True)
        if passed > PATIENCE:
            return Rest(now, passed, idle=False)
        before = now


def _sum(pids: set[int]) -> tuple[float, float]:
    used = [usage for pid in pids if (usage := usage_of(pid)) is not None]
    return sum(usage.cpu_s for usage in used), sum(usage.rss_mb for usage in used)


def _trees(*roots: int | None) -> list[set[int]]:
    """Return each process with all that descend from it."""
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (parent := _parent(folder)):
            children[parent].append(int(folder.name))
    return [set(_descendants(root, children)) if root else set() for root in roots]


def _descendants(pid: int, children: Mapping[int, Sequence[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _descendants(child, children)


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
