"""Results as files: the last one, and those that are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe

FOLDER: Final = Path(__file__).parent / "results"
LAST: Final = FOLDER / "last.json"
LAST_INBOX: Final = FOLDER / "last-inbox.json"
LAST_LIGHTNINGD: Final = FOLDER / "last-lightningd.json"
ALL: Final = (LAST, LAST_INBOX, LAST_LIGHTNINGD)


def write(
    path: Path, results: Sequence[dict[str, Any]], about: Mapping[str, str | float] | None = None
) -> None:
    """Write results as a list of objects; `about` says under which conditions they came about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": dict(about), "results": results} if about else results
    path.write_text(json.dumps(content, indent=1) + "\n")


def save(last: Path) -> Path:
    """Keep the last results, with a description of this machine; return the new file.

    Raises:
        OSError: there are none.
    """
    content = json.loads(last.read_text())
    results, about = (content["results"], content["about"]) if isinstance(content, dict) else (content, {})
    machine = describe() | about
    when = datetime.fromtimestamp(last.stat().st_mtime, UTC)
    cpu = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-")
    subject = last.stem.removeprefix("last").strip("-")
    name = "-".join(filter(None, (f"{when:%Y-%m-%d}", subject, cpu, f"{machine['cores']}-cores")))
    path = FOLDER / f"{name}.json"
    path.write_text(
        json.dumps({"date": f"{when:%Y-%m-%d}", "machine": machine, "results": results}, indent=1) + "\n"
    )
    return path
