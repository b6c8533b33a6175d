"""All that runs during a benchmark: a node, the servers, and the load, each a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import coincurve
from pyln.client import LightningRpc

from benchmarks.cases import Case, Server
from benchmarks.job import Job, Measured
from benchmarks.process import address_of, started, stream_of, wait_for_line

_MOST_PEERS: Final = 1000
_LIMITS_OFF: Final = {"CUSTOMMSG_PEER_MESSAGES_PER_S": "0", "CUSTOMMSG_PEER_BYTES_PER_S": "0"}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each measurement takes, in seconds."""

    warm_up: float = 0.3
    seconds: float = 1.0


@dataclass(slots=True)
class Running:
    """A server."""

    address: str
    process: subprocess.Popen[str]


@dataclass(slots=True)
class Rig:
    """What runs."""

    rpc_file: str
    peers: Sequence[str]
    node: subprocess.Popen[str] | None
    load: subprocess.Popen[str]
    servers: dict[Server, Running] = field(default_factory=dict)
    stats: Path | None = None
    """Where a profiled gateway writes."""

    def measure(self, case: Case, timing: Timing) -> Measured:
        """Run one case once."""
        server = self.servers.get(case.server)
        watch = {}
        if server is not None:
            watch["server"] = server.process.pid
        if self.node is not None:
            watch["node"] = self.node.pid
        return self._run(
            Job(
                load=case.load,
                target=server.address if server else self.rpc_file,
                peers=self.peers[: case.peers],
                callers=case.callers,
                connections=case.connections,
                batch=case.batch,
                size=case.size,
                rate=case.rate,
                warm_up=timing.warm_up,
                seconds=timing.seconds,
                watch=watch,
            )
        )

    def profile(self, case: Case, timing: Timing) -> Measured:
        """Run one case once, and have its gateway write what the profiler saw."""
        process = self.servers[case.server].process
        process.send_signal(signal.SIGUSR1)
        measured = self.measure(case, timing)
        process.send_signal(signal.SIGUSR2)
        return measured

    def _run(self, job: Job) -> Measured:
        stdin, stdout = stream_of(self.load.stdin), stream_of(self.load.stdout)
        stdin.write(job.to_json() + "\n")
        stdin.flush()
        answer = stdout.readline()
        return Measured.from_json(answer) if answer else Measured(problem="the load process has ended")


@contextmanager
def rig(cases: Sequence[Case], rpc_file: str | None = None, stats: Path | None = None) -> Iterator[Rig]:
    """Run what the cases need.

    Args:
        cases: what will be measured.
        rpc_file: the socket of a real node; None for the stand-in.
        stats: run the gateways under a profiler that writes to this file.

    Raises:
        StartError: something did not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="custommsg-bench-")))
        if rpc_file is None:
            peers = _peers(max(case.peers for case in cases))
            rpc_file = str(folder / "lightning-rpc")
            node = stack.enter_context(
                started("node", "benchmarks.programs.node", rpc_file, *peers, folder=folder)
            )
            address_of(node, folder / "node.log")
        else:
            node, peers = None, _connected_peers(rpc_file)
        load = stack.enter_context(started("load", "benchmarks.load", folder=folder))
        running = Rig(rpc_file, peers, node, load, stats=stats)
        for name in sorted({case.server for case in cases} - {"node"}):
            running.servers[name] = stack.enter_context(_server(name, rpc_file, folder, stats))
        yield running


@contextmanager
def _server(name: Server, rpc_file: str, folder: Path, stats: Path | None) -> Iterator[Running]:
    if name in ("gateway", "unlimited"):
        settings = _LIMITS_OFF if name == "unlimited" else {}
        with gateway(name, rpc_file, folder, settings | {"CUSTOMMSG_RECEIVE": "false"}, stats) as running:
            yield running
        return
    arguments = (rpc_file,) if name == "naive" else ()
    with started(name, f"benchmarks.programs.{name}", *arguments, folder=folder) as process:
        yield Running(address_of(process, folder / f"{name}.log"), process)


@contextmanager
def gateway(
    name: str, rpc_file: str, folder: Path, settings: Mapping[str, str], stats: Path | None = None
) -> Iterator[Running]:
    """Run a gateway as its users do, until its node answers."""
    module, arguments = "custommsg_server", ["serve", "--insecure"]
    if stats is not None:
        module, arguments = "benchmarks.programs.profiled", [str(stats), "serve", "--insecure"]
    env = {
        "CUSTOMMSG_LISTEN": "127.0.0.1:0",
        "CUSTOMMSG_RPC_FILE": rpc_file,
        "CUSTOMMSG_DATA_DIR": str(folder / f"{name}-data"),
        "CUSTOMMSG_LOG_FORMAT": "json",
    }
    with started(name, module, *arguments, folder=folder, env=env | dict(settings)) as process:
        log = folder / f"{name}.log"
        listening = json.loads(wait_for_line(process, log, "gateway listening"))
        wait_for_line(process, log, "node link up")
        yield Running(listening["addresses"][0], process)


def _peers(count: int) -> list[str]:
    """Return the ids of peers that a stand-in can have."""
    return [
        coincurve.PrivateKey(number.to_bytes(32, "big")).public_key.format().hex()
        for number in range(1, count + 1)
    ]


def _connected_peers(rpc_file: str) -> list[str]:
    peers = [peer["id"] for peer in LightningRpc(rpc_file).listpeers()["peers"] if peer["connected"]]
    if not peers:
        raise SystemExit("The node is connected to no peer, so there is nobody to send to.")
    return peers[:_MOST_PEERS]
