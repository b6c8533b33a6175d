"""What Prometheus would see."""

from __future__ import annotations

import asyncio
import urllib.request

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


async def scrape(address: str) -> dict[str, Metric]:
    """Ask a gateway for its metrics, by name."""
    text = await asyncio.to_thread(_get, address)
    return {metric.name: metric for metric in text_string_to_metric_families(text)}


def value(metrics: dict[str, Metric], sample: str, **labels: str) -> float:
    """Return the value of one sample; 0 if there is none with these labels."""
    return sum(
        one.value
        for metric in metrics.values()
        for one in metric.samples
        if one.name == sample and labels.items() <= one.labels.items()
    )


def _get(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
