"""What the load process is asked to do, and what it answers: one line of JSON each way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement."""

    load: str
    """Which load: a key of `benchmarks.load.LOADS`."""
    target: str
    """Where it goes: a gRPC address, or the path of a node's socket."""
    peers: Sequence[str]
    """The node ids that the messages are spread over, in hex."""
    callers: int = 1
    """Callers at once (for a pipelined connection: requests in flight)."""
    connections: int = 1
    """Client connections that the callers share."""
    batch: int = 1
    """Messages in one request of a stream."""
    size: int = 32
    """Bytes of a message, its type included."""
    rate: float = 0.0
    """Messages a second, sent when they are due; 0 is as many as are answered."""
    warm_up: float = 0.3
    """Seconds before the measured time."""
    seconds: float = 1.0
    """The measured time."""
    watch: Mapping[str, int] = field(default_factory=dict)
    """Processes whose CPU time and memory are measured, too: their ids by name."""

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read it."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used."""

    cpu_s: float
    """CPU time in seconds, of all its threads."""
    rss_mb: float
    """Resident memory in MB."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a job."""

    seconds: float = 0.0
    """How long was measured."""
    messages: int = 0
    """Messages that were answered with success in that time."""
    failures: int = 0
    """Messages that were answered with an error in that time."""
    p50_ms: float = 0.0
    """Milliseconds from when a message was due to its answer: half took less."""
    p99_ms: float = 0.0
    """The same: one in a hundred took longer."""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    """What each watched process used in that time; the load itself is `load`. Empty where nobody can tell."""
    problem: str = ""
    """Why there is nothing of the above; empty if there is."""

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """Read it."""
        values = json.loads(text)
        values["usage"] = {name: Usage(**usage) for name, usage in values["usage"].items()}
        return cls(**values)
