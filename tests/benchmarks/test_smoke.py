"""The benchmarks work: each kind of load against each server, for a moment."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

KINDS = (
    "direct",
    "direct-tuned",
    "direct-1000/s",
    "naive-64",
    "empty-16",
    "unary-16",
    "unary-1000/s",
    "connections-10",
    "stream-64",
    "stream-64/one-peer",
    "size-60kB",
    "client-64",
)


async def run(module: str, *arguments: str) -> str:
    """Run a benchmark to its end; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # it ends what it has started
            await process.wait()
    assert process.returncode == 0, errors.decode() + out.decode()
    return out.decode()


async def test_every_kind_of_case_is_measured(tmp_path: Path) -> None:
    only = [part for name in KINDS for part in ("--only", name)]
    printed = await run("benchmarks", "--quick", *only, "--out", str(tmp_path / "last.json"))
    assert "stream-64 is" in printed
    assert "of direct (goal: 1.0)" in printed
    lines: dict[str, dict[str, Any]] = {
        line["case"]: line for line in json.loads((tmp_path / "last.json").read_text())
    }
    assert set(KINDS) <= set(lines)
    assert lines["direct"]["of_limit"] == 1
    for line in lines.values():
        assert not line["problem"]
        assert line["messages_per_s"] >= 0
    assert lines["stream-64"]["limits"] == "defaults"
    assert lines["stream-64/one-peer"]["limits"] == "off"


async def test_the_gateway_can_be_profiled() -> None:
    printed = await run("benchmarks", "--quick", "--profile", "stream-64")
    assert "µs of CPU each" in printed


async def test_receiving_is_measured(tmp_path: Path) -> None:
    printed = await run("benchmarks.inbox", "--quick", "--json", "--out", str(tmp_path / "last.json"))
    cases = {line["case"]: line for line in json.loads(printed)}
    assert cases["replay-1"]["messages_per_s"] > 0
    assert cases["live"]["p50_ms"] > 0
