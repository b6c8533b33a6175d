"""Fixtures: what kustomize makes of the manifests."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from support.containers import PROJECT
from support.tools import missing, run, tool

OVERLAYS = ("laptop", "production")


@cache
def render(overlay: str) -> str:
    """Return an overlay's manifests, as `kubectl apply -k` would apply them."""
    return run(tool("kubectl"), "kustomize", str(PROJECT / "deploy/kubernetes/overlays" / overlay))


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Return the name of each overlay."""
    name: str = request.param
    return name


@pytest.fixture
def rendered(overlay: str) -> str:
    """Return the manifests of each overlay, as YAML."""
    return render(overlay)


@pytest.fixture
def manifests(rendered: str) -> list[dict[str, Any]]:
    """Return the manifests of each overlay."""
    return load(rendered)


def load(text: str) -> list[dict[str, Any]]:
    """Read the documents of a YAML stream."""
    try:
        import yaml
    except ImportError:
        missing("PyYAML is not here: make test-deploy brings it")
    return list(yaml.safe_load_all(text))
