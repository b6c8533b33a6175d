"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fix"]
"""All is well; it works, but read this; it does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    said: str
    """What is the case."""
    advice: str = ""
    """What to do, if not all is well."""


def is_well(findings: list[Finding]) -> bool:
    """Return whether a gateway would work."""
    return all(finding.level != "fix" for finding in findings)
