"""The report at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final

from hostile.record import (
    BESIDE,
    Delivered,
    Interrupted,
    Record,
    explain,
    judge,
    latencies,
    percentile,
)

BESIDE_BUDGET: Final = 160_000_000
"""Bytes above the gateway's idle memory and its budget for messages: the intake's 16 MiB and what the inbox is writing,
the events of last, SQLite's cache, connections with TLS, and what Python and gRPC do not give back."""


GOAL: Final = 2.0
"""How much longer than beside an attack what is honest may take."""


def make(record: Record, idle: int, peak: int, budget: int) -> dict[str, Any]:
    """Return the figures of a run.

    Args:
        record: the run.
        idle: the gateway's memory after its start, in bytes.
        peak: its maximum memory.
        budget: its setting memory_budget_mb in bytes.
    """
    bound = idle + budget + BESIDE_BUDGET
    invariants = [{"name": one.name, "broken": one.broken, "note": one.note} for one in judge(record)]
    invariants += [
        {"name": "memory above its bound", "broken": int(peak > bound), "note": ""},
        {"name": "other things that must never happen", "broken": len(record.broken), "note": ""},
    ]
    sends = Counter(send.outcome for send in record.sends.values())
    outages = [
        {
            "kind": kind,
            "count": len(those),
            "longest_s": round(max(outage.received - outage.begin for outage in those), 2),
        }
        for kind in dict.fromkeys(outage.kind for outage in record.outages)
        if (those := [outage for outage in record.outages if outage.kind == kind and outage.received < inf])
    ]
    return {
        "passed": not any(one["broken"] for one in invariants),
        "invariants": invariants,
        "broken": record.broken[:20],
        "latency": {
            name: {
                when: {
                    "count": len(values),
                    "p50_ms": round(percentile(values, 0.5) * 1000, 2),
                    "p99_ms": round(percentile(values, 0.99) * 1000, 2),
                }
                for when, values in by_phase.items()
            }
            for name, by_phase in latencies(record).items()
        },
        "memory": {"idle": idle, "peak": peak, "bound": bound},
        "messages": {
            "sent by the honest peer": len(record.sent),
            "answered to the node": len(record.answered),
            "delivered": sum(isinstance(one, Delivered) for one in record.stream),
            "delivered again, not acknowledged before": record.redelivered,
        },
        "interruptions": {
            "got": sum(isinstance(one, Interrupted) for one in record.stream),
            "messages they count as lost": sum(
                one.lost for one in record.stream if isinstance(one, Interrupted)
            ),
            **explain(record),
        },
        "sends": {**sends, "got by the peer": len(record.heard)},
        "outages": outages,
        "faults": dict(sorted(record.faults.items())),
    }


def text(content: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [f"seed {content['seed']}"]
    lines += [f"skipped: {what}" for what in content["skipped"]]
    lines += [
        "",
        *_table(("latency, ms", "n", "p50", "p99", "p50 / beside", "p99 / beside"), _latency(content)),
        *_MEANING,
    ]
    memory = {name: f"{size / 1e6:,.0f} MB" for name, size in content["memory"].items()}
    lines += ["", *_table(("memory of the gateway", ""), memory.items())]
    for name in ("messages", "interruptions", "sends"):
        lines += ["", *_table((name, ""), content[name].items())]
    outages = [(one["kind"], one["count"], f"{one['longest_s']:.1f} s") for one in content["outages"]]
    lines += ["", *_table(("outage of receiving", "n", "longest"), outages)]
    lines += ["", *_table(("faults", ""), content["faults"].items())]
    lines += ["", *_table(("attackers", ""), content["attackers"].items())]
    held = [
        (one["name"], f"{one['broken']:,}", "" if not one["broken"] else "BROKEN", one["note"])
        for one in content["invariants"]
    ]
    lines += ["", *_table(("must be 0", "", "", ""), held)]
    lines += [f"  {what}" for what in content["broken"]]
    lines += ["", "passed" if content["passed"] else "FAILED"]
    return "\n".join(lines)


_MEANING: Final = (
    "  alone: without attackers. beside: they attack another gateway and its node on this machine. attack: they attack",
    "  this one. attack / beside is what it costs to share a gateway with them; beside / alone, to share a machine.",
    f"  The goal: medians of the gateway's part (hook to consumer) and of a send within {GOAL:g} x of beside.",
    "  A send contains what the node takes, a message from the peer what the node takes to read it.",
)


def _latency(content: dict[str, Any]) -> Iterable[Sequence[object]]:
    for name, by_phase in content["latency"].items():
        beside = by_phase[BESIDE]
        for when, one in by_phase.items():
            ratios = [
                f"{one[key] / beside[key]:.1f}" if beside[key] and one["count"] else "-"
                for key in ("p50_ms", "p99_ms")
            ]
            yield f"{name}, {when}", one["count"], f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}", *ratios


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [
        list(head),
        *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 or (column == 3 and len(row) == 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
