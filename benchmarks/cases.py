"""What is measured: each case once, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

Server = Literal["node", "naive", "empty", "gateway", "unlimited"]
"""What the load talks to. `unlimited` is a gateway whose limits per peer are off."""

LIMIT: Final = "direct"
"""The case that the others are compared with."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    section: str
    server: Server
    load: str
    callers: int = 1
    batch: int = 1
    peers: int = 100
    size: int = 32
    connections: int = 1
    rate: float = 0.0
    against: str = LIMIT
    """The case that is the limit of this one."""

    @property
    def limits(self) -> str:
        """Which of the gateway's limits per peer are in force."""
        return {"gateway": "defaults", "unlimited": "off"}.get(self.server, "none")


_SIDE_BY_SIDE: Final = "Side by side, 100 peers"
_ONE_PEER: Final = "To one peer"
_LATENCY: Final = "Latency: one caller, and 1,000 messages/s however slow the answers are"
_GROWTH: Final = "How cost grows: peers, sizes (both on a stream in batches of 16), connections"


def _side_by_side() -> list[Case]:
    callers = (1, 16, 64)
    return [
        Case("direct", _SIDE_BY_SIDE, "node", "direct", callers=32),
        Case("direct-tuned", _SIDE_BY_SIDE, "node", "tuned", callers=512),
        Case("naive-64", _SIDE_BY_SIDE, "naive", "unary", callers=64),
        *(Case(f"empty-{n}", _SIDE_BY_SIDE, "empty", "unary", callers=n) for n in callers),
        *(Case(f"unary-{n}", _SIDE_BY_SIDE, "gateway", "unary", callers=n) for n in callers),
        *(Case(f"stream-{n}", _SIDE_BY_SIDE, "gateway", "stream", batch=n) for n in (1, 16, 64, 256)),
        Case("client-64", _SIDE_BY_SIDE, "gateway", "client", callers=64),
    ]


def _one_peer(cases: Sequence[Case]) -> list[Case]:
    return [
        replace(case, name=f"{case.name}/one-peer", section=_ONE_PEER, server="unlimited", peers=1)
        for case in cases
        if case.server == "gateway"
    ]


def _latency() -> list[Case]:
    servers: tuple[tuple[str, Server, str], ...] = (
        ("direct", "node", "direct"),
        ("naive", "naive", "unary"),
        ("unary", "gateway", "unary"),
    )
    return [
        *(Case(f"{name}-1", _LATENCY, server, load) for name, server, load in servers if name != "unary"),
        *(Case(f"{name}-1000/s", _LATENCY, server, load, rate=1000) for name, server, load in servers),
    ]


def _growth() -> list[Case]:
    stream = Case("", _GROWTH, "unlimited", "stream", batch=16)
    unary = Case("", _GROWTH, "unlimited", "unary", callers=100)
    direct = Case("", _GROWTH, "node", "direct", callers=32)
    sizes = {"4B": 4, "1kB": 1000, "60kB": 60_000}
    return [
        *(replace(stream, name=f"peers-{n}", peers=n) for n in (1, 10, 100, 1000)),
        *(replace(direct, name=f"direct-{name}", size=size) for name, size in sizes.items()),
        *(
            replace(stream, name=f"size-{name}", size=size, against=f"direct-{name}")
            for name, size in sizes.items()
        ),
        *(replace(unary, name=f"connections-{n}", connections=n) for n in (1, 10, 100)),
        *(replace(stream, name=f"streams-{n}", connections=n) for n in (1, 10, 100)),
    ]


CASES: Final[Sequence[Case]] = (
    *_side_by_side(),
    *_one_peer(_side_by_side()),
    *_latency(),
    *_growth(),
)

GOALS: Final = (
    ("stream-64", "direct", 1.0),
    ("client-64", "direct", 0.7),
    ("unary-64", "naive-64", 1.3),
    ("unary-64", "empty-64", 0.6),
)
"""How many messages a second a case should reach at least, as a part of another."""


def select(patterns: Sequence[str]) -> list[Case]:
    """Return the cases that fit one of the patterns (`stream-*`), and what they are compared with; or all.

    Raises:
        ValueError: a pattern fits none.
    """
    if not patterns:
        return list(CASES)
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in CASES):
            raise ValueError(
                f"No case is called {pattern}. There are: {' '.join(case.name for case in CASES)}"
            )
    wanted = {case.name for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in patterns)}
    wanted |= {LIMIT} | {case.against for case in CASES if case.name in wanted}
    return [case for case in CASES if case.name in wanted]
