"""Runs one case, and counts what it cost, together with what was left to do afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from benchmarks.lightningd import programs
from benchmarks.lightningd.cases import Case, Section, Target
from benchmarks.lightningd.programs import CLIENT, PEERS, Channel, Lightningd, Server
from benchmarks.lightningd.usage import Rest, Used, Watched, until_idle
from benchmarks.process import StartError

REST: Final = 2.0
"""Seconds after which the memory of a server at rest is looked at."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is compared, and how."""

    lightningd: str
    cln_grpc: str | None
    settings: Mapping[str, str] = field(default_factory=dict)
    """More settings of the gateway, as environment variables."""
    warm_up: float = 0.5
    seconds: float = 2.0
    size: int = 100
    profile: bool = False
    """Whether the gateways run under a profiler."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one case in one round."""

    per_s: float = 0.0
    """Calls or messages a second; of subscribers: to each."""
    lasting_per_s: float = 0.0
    """Messages sent, by the time from the start of the load until server and node were idle again."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    server_us: float = 0.0
    """CPU microseconds for each message sent, until both were idle: of the server ..."""
    node_us: float = 0.0
    """... and of lightningd, without a server that it has started."""
    later_us: float = 0.0
    """What of these two was used only after the load had ended."""
    later_s: float = 0.0
    """How long that took."""
    server_mb: float = 0.0
    """Resident memory afterwards."""
    load_busy: float = 0.0
    """The part of a core that the load took."""
    lost: int = 0
    start_s: float = 0.0
    problem: str = ""


@dataclass(slots=True)
class Rig:
    """What runs."""

    setup: Setup
    folder: Path
    nodes: dict[Target, Lightningd] = field(default_factory=dict)
    """The node of each server: each has one of its own, so that neither gets the other's messages."""
    servers: dict[tuple[Target, bool], Server] = field(default_factory=dict)
    """By target, and whether the benchmark plays its lightningd."""
    channels: dict[Target, Channel] = field(default_factory=dict)
    peers: Sequence[str] = ()
    version: str = ""

    def measure(self, case: Case) -> Measured:
        """Run one case once. What goes wrong is told, not raised: the other cases go on."""
        try:
            return self._start(case) if case.section is Section.IDLE else self._load(case)
        except (StartError, OSError, subprocess.SubprocessError) as error:
            return Measured(problem=str(error))

    def profile(self, case: Case) -> Measured:
        """Run one case once, and have its gateway write what the profiler saw to `stats`."""
        pid = self.servers[case.target, case.channel].pid
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        measured = self.measure(case)
        os.kill(pid, signal.SIGUSR2)
        return measured

    def stats(self, case: Case) -> Path:
        """Return where the profiled gateway of a case writes."""
        return self.folder / ("stats-without-node" if case.channel else "stats")

    def _load(self, case: Case) -> Measured:
        server = self.servers.get((case.target, case.channel))
        node = None if case.channel else self.nodes.get(case.target)
        channel = self.channels[case.target] if case.channel else None
        watched = Watched(
            server.pid if server else None,
            node.process.pid if node else None,
            server.marker if server else "",
        )
        before, start = watched.used(), monotonic()
        report = self._run([*case.load, *self._where(case, server, node, channel)], channel)
        after, elapsed = watched.used(), monotonic() - start
        rest = until_idle(watched, channel.drain if channel else lambda: None)
        if "problem" in report:
            return Measured(problem=report["problem"])
        problem = report["failure"] or ("" if rest.idle else f"it was not idle after {rest.seconds:.0f} s")
        return _measured(report, before, after, rest, elapsed, problem)

    def _where(
        self, case: Case, server: Server | None, node: Lightningd | None, channel: Channel | None
    ) -> Iterator[str]:
        setup = self.setup
        yield from ("--size", str(setup.size))
        yield from ("--warm-up", str(setup.warm_up), "--seconds", str(setup.seconds))
        if server is not None:
            yield from ("--address", server.address, *server.certificates.client())
            if case.target in (Target.DIALECT, Target.CLN_GRPC):
                yield from ("--contract", "cln")
        elif node is not None:
            yield from ("--socket", str(node.rpc_file))
        if case.load[0] != "receive":
            yield from ("--peers", ",".join(self.peers))
            return
        yield from ("--senders", str(PEERS))
        if channel is not None:
            yield from ("--channel", str(channel.socket.fileno()), "--channel-kind", channel.kind)
        elif node is not None:
            yield from ("--node", node.address)

    def _run(self, arguments: Sequence[str], channel: Channel | None) -> dict[str, Any]:
        done = subprocess.run(
            [str(CLIENT), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.setup.seconds + 120,
            check=False,
            pass_fds=[channel.socket.fileno()] if channel else [],
        )
        if done.returncode:
            return {"problem": done.stderr.strip()[-500:]}
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _start(self, case: Case) -> Measured:
        """Start a server anew, and look at it when it has nothing to do."""
        with tempfile.TemporaryDirectory(prefix="custommsg-bench-") as name, ExitStack() as stack:
            folder = Path(name)
            if case.target is Target.CLN_GRPC:
                assert self.setup.cln_grpc is not None
                server, _ = stack.enter_context(programs.cln_grpc(self.setup.cln_grpc, folder))
            else:
                rpc_file = stack.enter_context(programs.standin(folder))
                certificates = self.servers[Target.GATEWAY, True].certificates
                server = stack.enter_context(
                    programs.gateway("gateway", folder, rpc_file, certificates, self.setup.settings)
                )
            sleep(REST)
            used = Watched(server.pid, None, "").used()
            return Measured(server_mb=used.server_mb, start_s=server.start_s)


def _measured(
    report: Mapping[str, Any], before: Used, after: Used, rest: Rest, elapsed: float, problem: str
) -> Measured:
    micros = 1e6 / max(1, report["total"])
    return Measured(
        per_s=report["per_s"],
        lasting_per_s=report["total"] / (elapsed + rest.seconds),
        p50_ms=report["p50_ms"],
        p99_ms=report["p99_ms"],
        server_us=micros * (rest.used.server_s - before.server_s),
        node_us=micros * (rest.used.node_s - before.node_s),
        later_us=micros * (rest.used.together_s - after.together_s),
        later_s=rest.seconds,
        server_mb=rest.used.server_mb,
        load_busy=report["busy"],
        lost=report["lost"],
        problem=problem,
    )


@contextmanager
def rig(setup: Setup) -> Iterator[Rig]:
    """Run everything that is compared.

    Raises:
        StartError: something did not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="custommsg-bench-")))
        running = Rig(setup, folder)
        certificates = programs.make_certificates(folder / "certificates")
        ours = stack.enter_context(programs.lightningd(setup.lightningd, folder / "node"))
        running.version = ours.version
        gateway = stack.enter_context(
            programs.gateway(
                "gateway",
                folder,
                ours.rpc_file,
                certificates,
                setup.settings,
                folder / "stats" if setup.profile else None,
            )
        )
        alone = stack.enter_context(programs.standin(folder))
        without = stack.enter_context(
            programs.gateway(
                "gateway-without-node",
                folder,
                alone,
                certificates,
                setup.settings,
                folder / "stats-without-node" if setup.profile else None,
            )
        )
        channel = programs.attach_gateway(Path(without.marker))
        for target in (Target.GATEWAY, Target.DIALECT):
            running.nodes[target] = ours
            running.servers[target, False], running.servers[target, True] = gateway, without
            running.channels[target] = channel
        running.nodes[Target.NODE] = ours
        running.servers[Target.EMPTY, False] = stack.enter_context(programs.empty(folder, certificates))
        if setup.cln_grpc is not None:
            _add_cln_grpc(stack, running, setup.cln_grpc)
        running.peers = stack.enter_context(
            programs.peers(list({id(n): n for n in running.nodes.values()}.values()))
        )
        yield running


def _add_cln_grpc(stack: ExitStack, running: Rig, program: str) -> None:
    port = programs.free_port()
    theirs = stack.enter_context(
        programs.lightningd(
            running.setup.lightningd,
            running.folder / "node-of-cln-grpc",
            f"--plugin={program}",
            f"--grpc-port={port}",
        )
    )
    certificates = programs.Certificates(theirs.rpc_file.parent, "-key.pem")
    running.nodes[Target.CLN_GRPC] = theirs
    running.servers[Target.CLN_GRPC, False] = Server(f"127.0.0.1:{port}", certificates, None, program, 0.0)
    server, channel = stack.enter_context(programs.cln_grpc(program, running.folder / "cln-grpc"))
    running.servers[Target.CLN_GRPC, True] = server
    running.channels[Target.CLN_GRPC] = channel
