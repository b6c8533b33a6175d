"""Write the tables of docs/operations.md that the code knows best: `python tools/document.py`.

The settings come from config.py, the metrics from a gateway that is started and asked, the reasons from errors.py.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from custommsg_server import app
from custommsg_server.api.status import CODES
from custommsg_server.domain import errors
from custommsg_server.domain.errors import Reason
from custommsg_server.settings import RELOADABLE, Settings, load

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"


def settings_table() -> str:
    """Return the table of settings."""
    rows = (
        (
            f"`--{name.replace('_', '-')}`",
            f"`{_default(field.default)}`" if field.default not in (None, "", ()) else "",
            "yes" if name in RELOADABLE else "",
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    )
    return _table(("setting", "default", "SIGHUP", "what it is"), rows)


def reasons_table() -> str:
    """Return the table of reasons; what each means stands under it in the source."""
    [body] = [
        node.body
        for node in ast.parse(inspect.getsource(errors)).body
        if isinstance(node, ast.ClassDef) and node.name == "Reason"
    ]
    texts: dict[str, str] = {}
    for member, text in itertools.pairwise(body):
        if (
            isinstance(member, ast.Assign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            target = member.targets[0]
            assert isinstance(target, ast.Name)
            texts[target.id] = " ".join(str(text.value.value).split())
    rows = ((f"`{reason.name}`", f"`{CODES[reason].name}`", texts[reason.name]) for reason in Reason)
    return _table(("reason", "code", "what has happened"), rows)


async def metrics_table() -> str:
    """Return the table of metrics: what a gateway that has just started says that it has."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = {
            "rpc_file": f"{folder}/none",
            "listen": (f"unix:{folder}/s",),
            "receive": False,
            "insecure": True,
        }
        settings = load({**quiet, "metrics_listen": "127.0.0.1:0"}, environ={})
        async with app.running(settings) as gateway:
            text = await asyncio.to_thread(_get, f"http://{gateway.metrics}/metrics")
    rows = (
        (f"`{_shown(metric.name, metric.type)}`", metric.type, metric.documentation)
        for metric in text_string_to_metric_families(text)
        if metric.name.startswith("custommsg_") and not metric.name.endswith("_created")
    )
    return _table(("metric", "type", "what it is"), sorted(rows))


def fill(page: str, tables: dict[str, str]) -> str:
    """Put tables between their marks in a page."""
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name}: .*?-->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = mark.subn(lambda found, table=table: f"{found[1]}{table}{found[2]}", page)
        assert count == 1, f"one place for {name} in {PAGE}"
    return page


async def rendered() -> str:
    """Return the page as it should be."""
    tables = {"settings": settings_table(), "metrics": await metrics_table(), "reasons": reasons_table()}
    return fill(PAGE.read_text(), tables)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _default(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _shown(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- our own, just started
        return str(answer.read().decode())


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(rendered()))
    sys.stdout.write(f"{PAGE} is up to date\n")
