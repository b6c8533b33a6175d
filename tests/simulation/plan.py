"""What a run is like."""

from __future__ import annotations

import random
from dataclasses import dataclass

from custommsg_server.core.limits import Rate
from simulation.node import PEERS


@dataclass(frozen=True)
class Plan:
    """What a run is like, drawn from its seed: each run is extreme in some way, and has some things not at all."""

    steps: int
    peers: int
    flood: float
    """The part of all messages that one peer sends, at least."""
    sizes: tuple[int, ...]
    burst: int
    fault_rate: float
    kill_rate: float
    has_power_failures: bool
    interleaving: float
    max_waiting: int
    max_full: int
    rate: Rate
    recent_size: int
    chunk: int
    commit_size: int
    max_size: int
    max_age: float
    consumer_share: float
    ack_rate: float
    memory: int
    """Bytes that batches for subscribers may take."""

    @classmethod
    def draw(cls, some: random.Random) -> Plan:
        """Draw one."""
        return cls(
            steps=some.choice([50, 80, 150]),
            peers=some.choice([1, 2, 3, len(PEERS)]),
            flood=some.choice([0, 0, 0.8]),
            sizes=some.choice([(0,), (0, 10, 200), (0, 900), (2000,)]),
            burst=some.choice([1, 2, 5, 15]),
            fault_rate=some.choice([0, 0, 0.003, 0.02, 0.1]),
            kill_rate=some.choice([0, 0, 0.01, 0.05]),
            has_power_failures=some.random() < 0.3,
            interleaving=some.choice([0, 0.2, 0.6]),
            max_waiting=some.choice([6_000, 6_000, 20_000, 16 << 20]),
            max_full=some.choice([1_500, 20_000, 16 << 20]),
            rate=some.choice([Rate(), Rate(), Rate(20, 0, 0.2), Rate(0, 10_000, 0.5), Rate(5, 5000, 1)]),
            recent_size=some.choice([0, 2_000, 20_000, 8 << 20]),
            chunk=some.choice([1, 4, 20, 500]),
            commit_size=some.choice([1_000, 5_000, 4 << 20]),
            max_size=some.choice([70_000, 85_000, 120_000, 1 << 40]),
            max_age=some.choice([2e6, 2e6, 20.0]),
            consumer_share=some.choice([0.0, 0.5, 0.9]),
            ack_rate=some.choice([0.1, 0.5, 1.0]),
            memory=some.choice([10_000, 100_000, 64 << 20]),
        )
