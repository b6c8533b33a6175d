"""The report of all findings: as columns or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from custommsg_server.ops.doctor.finding import Finding


def as_text(findings: Sequence[Finding]) -> str:
    """Return one line for each finding, followed by what to do."""
    width = max(len(finding.check) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level:<4}  {finding.check:<{width}}  {finding.said}")
        if finding.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.advice}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """Return a list with one object for each finding."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)
