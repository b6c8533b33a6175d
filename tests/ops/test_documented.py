"""Code and documentation agree."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from custommsg.v1 import custommsg_pb2
from custommsg_server import app
from custommsg_server.core.memory import Kind
from custommsg_server.domain.errors import Reason
from custommsg_server.settings import Settings
from support.gateways import settings
from support.metrics import scrape

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "operations.md"


NO_BOUNDS = {
    *("listen", "insecure", "require", "tls_cert", "tls_key", "tls_client_ca", "reflection"),
    *("rpc_file", "lightning_dir", "network", "node_probe_interval", "heartbeat"),
    *(
        "receive",
        "accept_even_types",
        "data_dir",
        "plugin_dir",
        "plugin_dir_for_node",
        "dialects",
        "lnd_types",
    ),
    *("metrics_listen", "otel_endpoint", "log_calls", "log_level", "log_format"),
}
"""Settings that say where and what, and not how much."""


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("document", ROOT / "tools" / "document.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_every_setting_metric_and_reason_is_in_the_operations_page() -> None:
    """The tables match the code; if not, run make docs."""
    page = PAGE.read_text()
    assert await _tool().rendered() == page, "docs/operations.md is not what the code says. Run: make docs"
    assert not [name for name in Settings.model_fields if f"`--{name.replace('_', '-')}`" not in page]
    assert not [reason.name for reason in Reason if f"| `{reason.name}` |" not in page]


def test_every_rpc_is_in_the_table_of_methods_for_runes() -> None:
    """Whoever makes a rune looks there for what to restrict."""
    page = (ROOT / "docs" / "security.md").read_text()
    rows = page.partition("| RPC | method | parameters |")[2].partition("\n\n")[0].splitlines()
    named = set(re.findall(r"\w+", " ".join(row.split("|")[1] for row in rows if row)))
    rpcs = set(custommsg_pb2.DESCRIPTOR.services_by_name["CustomMsgService"].methods_by_name)
    assert rpcs <= named, f"no row in docs/security.md: {rpcs - named}"


def test_every_setting_that_bounds_something_is_in_the_security_page() -> None:
    """A new setting is named there, or here among those that bound nothing; so is what the memory budget counts."""
    page = (ROOT / "docs" / "security.md").read_text()
    bounding = Settings.model_fields.keys() - NO_BOUNDS
    assert not [name for name in sorted(bounding) if f"`{name}`" not in page]
    assert not [kind for kind in get_args(Kind) if f"`{kind}`" not in PAGE.read_text()]


async def test_alerts_and_dashboard_use_metrics_that_there_are(rpc_file: Path) -> None:
    """An alert on a renamed metric would never fire."""
    async with app.running(settings(rpc_file, receive=False, metrics_listen="127.0.0.1:0")) as gateway:
        metrics = await scrape(str(gateway.metrics))
    known = {name + suffix for name in metrics for suffix in ("", "_total", "_bucket", "_count", "_sum")}
    used = set(_used())
    assert len(used) > 20
    assert used <= known, f"no such metrics: {used - known}"
    shown = " ".join(_used())
    missing = [name for name in metrics if name.startswith("custommsg_") and name not in shown]
    assert missing == [], "metrics that neither an alert nor the dashboard shows"


def test_every_alert_leads_to_what_to_do() -> None:
    """Each links to an existing section of the page."""
    headings = {_anchor(line) for line in PAGE.read_text().splitlines() if line.startswith("#")}
    rules = _rules()
    assert len(rules) > 8
    for rule in rules:
        path, anchor = rule["annotations"]["runbook_url"].split("#")
        assert (ROOT / path) == PAGE
        assert anchor in headings, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
    links = re.findall(r"\]\(#([^)]+)\)", PAGE.read_text())
    assert not [link for link in links if link not in headings]


@pytest.mark.parametrize("panel", json.loads((ROOT / "deploy/grafana/custommsg.json").read_text())["panels"])
def test_every_panel_has_a_title_and_asks_something(panel: dict[str, Any]) -> None:
    """Its query has the selected gateways."""
    assert panel["title"]
    assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])


def _rules() -> list[dict[str, Any]]:
    manifest = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def _used() -> list[str]:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "custommsg.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for rule in _rules()]
    return re.findall(r"\b(?:custommsg|process)_[a-z_]+", " ".join(asked))


def _anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lstrip("# ").lower()).replace(" ", "-")
