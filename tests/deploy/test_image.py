"""The Dockerfile, and the image that tools/build_image.sh builds from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support import containers
from support.containers import PROJECT, Spec
from support.pods import gateway_image
from support.tools import missing, run_and_hear, tool


def test_hadolint_finds_nothing() -> None:
    """Not even at its lowest level."""
    assert run_and_hear(tool("hadolint"), str(PROJECT / "Dockerfile")) == ""


@pytest.fixture
def root() -> Path:
    """Return the image's files."""
    if "CUSTOMMSG_IMAGE_ROOT" not in os.environ:
        pytest.skip("no image: make test-image builds it")
    return Path(os.environ["CUSTOMMSG_IMAGE_ROOT"])


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    """Return the configuration of the image."""
    said: dict[str, Any] = json.loads(Path(os.environ["CUSTOMMSG_IMAGE_CONFIG"]).read_text())["Docker"][
        "config"
    ]
    return said


def test_its_configuration_is_what_runtimes_need(config: dict[str, Any]) -> None:
    """A numeric user, which runAsNonRoot needs, a signal that the program handles, a health check, and labels."""
    assert config["User"] == "9737:9737"
    assert config["Entrypoint"] == ["custommsg-server"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "custommsg_server.ops.probe"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "custommsg"
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_it_holds_nothing_to_build_or_install_with(root: Path) -> None:
    """No compiler, pip, wheel or cache. The user that it runs as owns nothing but the volume."""
    assert [name for name in ("gcc", "cc", "make", "pip", "pip3") for _ in root.glob(f"**/bin/{name}")] == []
    assert list(root.glob("**/*.whl")) == []
    assert list(root.glob("**/site-packages/pip")) == []
    assert not (root / "root/.cache").exists()
    assert not (root / "src").exists()
    owned = [path for path in root.glob("**/*") if path.lstat().st_uid == 9737]
    assert owned == [root / "var/lib/custommsg"]


async def test_any_user_can_run_it(root: Path, tmp_path: Path) -> None:
    """Some clusters run each project as a user of its own, which the image does not know."""
    if why := containers.why_not():
        missing(why)
    spec = Spec(gateway_image(), ["--version"], user=1_000_680_000)
    async with containers.running(spec, tmp_path) as container:
        assert await container.ended() == 0
