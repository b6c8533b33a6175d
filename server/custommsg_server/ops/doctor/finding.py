"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
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


def is_well(findings: list[Finding]) -> bool:
    """Return whether a gateway would work."""
    return all(finding.level != "fix" for finding in findings)
