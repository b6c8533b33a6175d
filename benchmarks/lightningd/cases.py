"""What is measured on a real lightningd: each case once, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class Target(StrEnum):
    """What the load talks to."""

    NODE = "node"
    """lightningd's own socket."""
    GATEWAY = "native"
    """The gateway, in its own contract."""
    DIALECT = "cln"
    """The gateway, in cln-grpc's contract."""
    CLN_GRPC = "cln-grpc"
    EMPTY = "empty"
    """A grpc.aio server that does nothing."""


class Section(StrEnum):
    """A table, by its title."""

    UNARY = "Unary calls"
    STREAM = "Many messages on one stream, beside lightningd's own socket"
    RECEIVE = "Receiving from 16 peers of lightningd"
    CHANNEL = "Receiving without a node between: the benchmark plays lightningd"
    LATENCY = "From when a message was due until it arrived, at 1,000 messages/s"
    IDLE = "At rest"


SERVERS: Final = (Target.GATEWAY, Target.DIALECT, Target.CLN_GRPC)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table."""

    name: str
    section: Section
    target: Target
    load: tuple[str, ...] = ()
    """Arguments of the compiled client, without those that say where to go; none: start a server, and look at it."""
    against: str = ""
    """The case that this one is compared with."""
    channel: bool = False
    """Whether the benchmark plays lightningd."""
    goal: float = 0.0
    """The ratio that is aimed at; 0: no goal."""

    @property
    def key(self) -> str:
        """The name without what is measured: what cases that are compared have in common."""
        return self.name.partition("/")[0]


def _unary() -> Iterator[Case]:
    for callers in (1, 16, 64):
        load = ("unary", "--callers", str(callers))
        for target in (*SERVERS, Target.EMPTY):
            yield Case(f"unary-{callers}/{target}", Section.UNARY, target, load, f"unary-{callers}/cln-grpc")


def _stream() -> Iterator[Case]:
    for many in (32, 256):
        yield Case(
            f"direct-{many}", Section.STREAM, Target.NODE, ("direct", "--in-flight", str(many)), "direct-32"
        )
    yield Case(
        "stream-64", Section.STREAM, Target.GATEWAY, ("stream", "--batch", "64"), "direct-32", goal=1.0
    )
    yield Case(
        "client-64", Section.STREAM, Target.GATEWAY, ("batched", "--callers", "64"), "direct-32", goal=0.8
    )


def _receive(name: str, section: Section, *, channel: bool) -> Iterator[Case]:
    goals = {1: 1.0, 10: 1.0, 100: 0.6}
    for subscribers, goal in goals.items():
        load = ("receive", "--subscribers", str(subscribers))
        for target in SERVERS:
            wanted = {Target.GATEWAY: goal, Target.DIALECT: 0.6, Target.CLN_GRPC: 0.0}[target]
            yield Case(
                f"{name}-{subscribers}/{target}",
                section,
                target,
                load,
                f"{name}-{subscribers}/cln-grpc",
                channel,
                0.0 if channel else wanted,
            )


def _latency() -> Iterator[Case]:
    for name, channel in (("latency", False), ("channel-latency", True)):
        for target in SERVERS:
            yield Case(
                f"{name}/{target}",
                Section.LATENCY,
                target,
                ("receive", "--rate", "1000"),
                f"{name}/cln-grpc",
                channel,
            )


CASES: Final[Sequence[Case]] = (
    *_unary(),
    *_stream(),
    *_receive("receive", Section.RECEIVE, channel=False),
    *_receive("channel", Section.CHANNEL, channel=True),
    *_latency(),
    Case("idle/gateway", Section.IDLE, Target.GATEWAY, against="idle/cln-grpc"),
    Case("idle/cln-grpc", Section.IDLE, Target.CLN_GRPC, against="idle/cln-grpc"),
)

GOALS: Final = (("unary-64/native", "unary-64/empty", 0.8),)
"""What else is compared, and the ratio that is aimed at."""

COST_GOALS: Final = tuple(
    (f"unary-{callers}/native", f"unary-{callers}/cln-grpc", 1.0) for callers in (1, 16, 64)
)
"""Whose CPU time a call, of server and node together and with what is left for later, is compared, and the ratio
that is not to be exceeded."""


def select(patterns: Sequence[str], *, cln_grpc: bool) -> list[Case]:
    """Return the cases that fit one of the patterns, or all, and what they are compared with.

    Args:
        patterns: of names: `receive-*`.
        cln_grpc: whether there is one to compare with.

    Raises:
        ValueError: a pattern fits none.
    """
    there = [case for case in CASES if cln_grpc or case.target is not Target.CLN_GRPC]
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in there):
            raise ValueError(
                f"No case is called {pattern}. There are: {' '.join(case.name for case in there)}"
            )
    wanted = {
        case.name
        for case in there
        if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)
    }
    wanted |= {case.against for case in there if case.name in wanted}
    return [case for case in there if case.name in wanted]
