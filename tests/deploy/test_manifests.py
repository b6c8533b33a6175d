"""The manifests: valid for Kubernetes, and in step with the gateway's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from custommsg_server.settings import PREFIX, load
from support.tools import run_and_hear, tool

OLDEST = "1.33"
"""The oldest Kubernetes that is supported: the first in which sidecars are no longer beta."""
NO_SCHEMA = {"ServiceMonitor"}
"""Kinds that the Prometheus operator defines, so that Kubernetes has no schema for them."""


def pod_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spec of the StatefulSet's pod."""
    (found,) = (one for one in manifests if one["kind"] == "StatefulSet")
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def gateway_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the gateway's container."""
    (found,) = (one for one in pod_of(manifests)["initContainers"] if one["name"] == "custommsg")
    return dict(found)


def test_kubernetes_knows_every_field(rendered: str, tmp_path: Path) -> None:
    """With the strict schema, in which a misspelt field is an error. Kinds without a schema are listed here."""
    file = tmp_path / "manifests.yaml"
    file.write_text(rendered)
    validate = (tool("kubernetes-validate"), "--strict", "--kubernetes-version", OLDEST)
    said = run_and_hear(*validate, str(file))
    assert "passed for resource statefulset/lightningd" in said
    without = {line.split("schema for kind ")[1].split()[0] for line in said.splitlines() if "WARN" in line}
    assert without <= NO_SCHEMA


def test_every_variable_is_a_setting(manifests: list[dict[str, Any]]) -> None:
    """The gateway accepts them. It would refuse an unknown variable, and unsafe settings."""
    env = {one["name"]: one["value"] for one in gateway_of(manifests)["env"]}
    settings = load({name.removeprefix(PREFIX).lower(): value for name, value in env.items()}, environ=env)
    assert settings.drain_time == 20


def test_the_pod_may_take_as_long_as_it_needs_to_stop(manifests: list[dict[str, Any]]) -> None:
    """lightningd waits longer than the gateway pauses and drains, and then has a minute left to stop."""
    pod = pod_of(manifests)
    drain = float(next(one["value"] for one in gateway_of(manifests)["env"] if "DRAIN_TIME" in one["name"]))
    _, pause, *_ = gateway_of(manifests)["lifecycle"]["preStop"]["exec"]["command"][2].split()
    waits = next(one for one in pod["containers"] if one["name"] == "lightningd")["lifecycle"]["preStop"]
    longest = float(waits["exec"]["command"][1])
    assert float(pause.rstrip(";")) + drain < longest
    assert pod["terminationGracePeriodSeconds"] >= longest + 60


def test_every_container_keeps_to_the_restricted_profile(manifests: list[dict[str, Any]]) -> None:
    """Of Kubernetes' Pod Security Standards, with a read-only root file system and a user of its own."""
    pod = pod_of(manifests)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    every = [*pod["initContainers"], *pod["containers"]]
    for container in every:
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert "privileged" not in security
    users = [container["securityContext"]["runAsUser"] for container in every]
    assert 0 not in users
    assert len(set(users)) == len(users)
