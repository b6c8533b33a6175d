"""The results of checks, and the report of them: as columns or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "note", "fix"]
"""ok: it works; note: it works, but read this; fix: it does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    said: str
    """What was found."""
    advice: str = ""
    """What to do; empty if nothing."""


def is_well(findings: Sequence[Finding]) -> bool:
    """Return whether a gateway would work."""
    return all(finding.level != "fix" for finding in findings)


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
