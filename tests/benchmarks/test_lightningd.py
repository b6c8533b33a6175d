"""The comparison on a real lightningd: which cases it takes, how it counts, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.lightningd.cases import CASES, Case, Target, select
from benchmarks.lightningd.measure import Measured
from benchmarks.lightningd.programs import CLIENT
from benchmarks.lightningd.result import cost, ratios, results_of
from benchmarks.lightningd.usage import Watched, until_idle

from support.nodes import find_lightningd

NAMED = {case.name: case for case in CASES}
NATIVE, OTHER = NAMED["receive-1/native"], NAMED["receive-1/cln-grpc"]


def names(cases: list[Case]) -> set[str]:
    return {case.name for case in cases}


def test_a_selected_case_brings_what_it_is_compared_with() -> None:
    """A ratio needs both of its cases."""
    assert names(select(["receive-1/native"], cln_grpc=True)) == {"receive-1/native", "receive-1/cln-grpc"}


def test_without_cln_grpc_its_cases_are_left_out() -> None:
    """Nobody has to have one."""
    there = select([], cln_grpc=False)
    assert len(there) > 10
    assert all(case.target is not Target.CLN_GRPC for case in there)


def test_a_pattern_that_fits_no_case_is_an_error() -> None:
    """A typing error must not measure nothing in silence."""
    with pytest.raises(ValueError, match="No case is called recieve"):
        select(["recieve-*"], cln_grpc=True)


def test_a_ratio_pairs_measurements_of_the_same_round() -> None:
    """A slow round counts for both, and a round in which one failed for neither."""
    rounds = {
        NATIVE.name: [Measured(per_s=50), Measured(per_s=5), Measured(problem="it ended")],
        OTHER.name: [Measured(per_s=100), Measured(per_s=10), Measured(per_s=100)],
    }
    assert ratios(rounds, NATIVE, OTHER) == [0.5, 0.5]
    [ours, _] = results_of([NATIVE, OTHER], rounds)
    assert (ours.ratio, ours.lowest, ours.highest) == (0.5, 0.5, 0.5)
    assert ours.problem == "it ended"


def test_the_cost_of_a_message_is_that_of_server_and_node() -> None:
    """Who leaves work to the node must not look cheap."""
    rounds = {
        NATIVE.name: [Measured(server_us=30, node_us=10)],
        OTHER.name: [Measured(server_us=10, node_us=70)],
    }
    assert ratios(rounds, NATIVE, OTHER, cost) == [0.5]


def test_latency_is_compared_by_its_median() -> None:
    """At a fixed rate the number of messages says nothing."""
    native, other = NAMED["latency/native"], NAMED["latency/cln-grpc"]
    rounds = {native.name: [Measured(per_s=1000, p50_ms=2)], other.name: [Measured(per_s=1000, p50_ms=1)]}
    assert ratios(rounds, native, other) == [2]


def test_a_server_that_lightningd_started_is_no_part_of_the_node() -> None:
    """Its processes are known by their command line; the node's own command line may name it, too."""
    child = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    node = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    with subprocess.Popen(
        [sys.executable, "-c", node, "marker-of-the-server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(1)
        used = Watched(server=None, node=process.pid, marker="marker-of-the-server").used()
        other = Watched(server=None, node=process.pid, marker="another").used()
        process.stdin.close()
    assert used.server_mb > 1
    assert other.server_mb == 0


def test_what_is_left_to_do_is_waited_for() -> None:
    """CPU time that a process uses after the load counts for the load."""
    work = "import time\nwhile time.process_time() < 0.8: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE) as process:
        rest = until_idle(Watched(server=process.pid, node=None, marker=""), lambda: None)
        process.communicate(b"\n")
    assert rest.idle
    assert rest.used.server_s >= 0.75


@pytest.mark.lightningd
@pytest.mark.timeout(300)
@pytest.mark.skipif(not CLIENT.exists(), reason="the compiled client is not built (make bench-client)")
@pytest.mark.skipif(find_lightningd() is None, reason="no lightningd")
def test_every_kind_of_case_runs_on_a_real_node(tmp_path: Path) -> None:
    """Each load reaches its server, and nothing is lost."""
    kinds = (
        "unary-16/*",
        "direct-32",
        "stream-64",
        "client-64",
        "receive-1/*",
        "channel-10/*",
        "latency/*",
        "idle/*",
    )
    only = [part for kind in kinds for part in ("--only", kind)]
    out = tmp_path / "last.json"
    lightningd = find_lightningd()
    assert lightningd is not None
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.lightningd",
            f"--lightningd={lightningd}",
            "--quick",
            *only,
            f"--out={out}",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = {line["case"]: line for line in json.loads(out.read_text())["results"]}
    assert {"unary-16/native", "unary-16/empty", "direct-32", "client-64", "channel-10/cln"} <= set(lines)
    for line in lines.values():
        assert not line["problem"]
        assert not line["lost"]
    assert lines["stream-64"]["ratio"] > 0
    assert lines["idle/gateway"]["server_mb"] > 0
