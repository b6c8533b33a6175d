"""The conformance table of docs/dialects.md: each client's rows come from its own test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs/dialects.md"
BEGIN: Final = "<!-- conformance: begin; written by `make conformance` -->\n"
END: Final = "<!-- conformance: end -->\n"
HEAD: Final = "| client | call | case | outcome |\n|---|---|---|---|\n"


def check(client: str, rows: list[tuple[str, str, object]]) -> None:
    """Compare what was seen with the committed table; with CONFORMANCE=write, write it instead.

    Args:
        client: the name and version of the client.
        rows: its call, the case and the outcome, for each.
    """
    lines = [f"| {client} | {call} | {case} | {outcome} |\n" for call, case, outcome in rows]
    before, table, after = _parts()
    committed = [line for line in table if line.startswith(f"| {client} |")]
    if os.environ.get("CONFORMANCE") == "write":
        others = [line for line in table if line not in committed]
        DOCUMENT.write_text(
            before + BEGIN + HEAD + "".join(sorted(others + lines, key=_client)) + END + after
        )
        return
    assert committed == lines, "the table in docs/dialects.md is out of date: make conformance"


def _client(line: str) -> str:
    return line.split("|")[1]


def _parts() -> tuple[str, list[str], str]:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    assert end, "docs/dialects.md has lost the place of its table"
    return before, table.removeprefix(HEAD).splitlines(keepends=True), after
