"""CPU time and memory of any process, from /proc; nothing where there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from benchmarks.job import Usage

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def usage_of(pid: int) -> Usage | None:
    """Return what a process has used until now, or None if that cannot be known."""
    try:
        # The second field is the program's name in parentheses, which may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, pages = int(fields[11]), int(fields[12]), int(fields[21])
    return Usage(cpu_s=(user + system) / _TICKS, rss_mb=pages * _PAGE / 1e6)
