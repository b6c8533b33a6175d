"""A pod of a rendered manifest as containers on this machine: same files, modes, users, groups, environment."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.containers import PROJECT, Image, Spec, this_machine

AS_LIGHTNINGD = Path(__file__).with_name("as_lightningd.py")
ANY_PORT = re.compile(r"0\.0\.0\.0:\d+")
"""The network is this machine's, where those ports may be taken, and nobody else is to reach us."""

Manifest = dict[str, Any]


def gateway_image() -> Image:
    """Return the image that was built, if there is one, or this machine's programs with the same entry point."""
    if root := os.environ.get("CUSTOMMSG_IMAGE_ROOT"):
        config = json.loads(Path(os.environ["CUSTOMMSG_IMAGE_CONFIG"]).read_text())["Docker"]["config"]
        env = dict(one.split("=", 1) for one in config["Env"])
        return Image({"/": Path(root)}, env, config["Entrypoint"], config["Cmd"])
    (entrypoint,) = (
        line.removeprefix("ENTRYPOINT ")
        for line in (PROJECT / "Dockerfile").read_text().splitlines()
        if line.startswith("ENTRYPOINT ")
    )
    return this_machine(json.loads(entrypoint))


def lightningd_image() -> Image:
    """Return an image whose lightningd is the embedded node."""
    return this_machine([sys.executable, str(AS_LIGHTNINGD)])


@dataclass(frozen=True)
class Pod:
    """A StatefulSet's pod.

    Args:
        spec: the pod's spec, as rendered.
        volumes: where each of its volumes is here.
    """

    spec: Manifest
    volumes: Mapping[str, Path]

    @classmethod
    def make(cls, stateful_set: Manifest, secrets: Mapping[str, Mapping[str, bytes]], folder: Path) -> Pod:
        """Make its volumes as kubelet does: root's, with the pod's group, which is handed on to what is in them.

        Args:
            stateful_set: whose pod.
            secrets: the cluster's Secrets by name: their files.
            folder: where to put the volumes.
        """
        spec = stateful_set["spec"]["template"]["spec"]
        empty = {one["name"]: 0o2777 for one in spec["volumes"] if "emptyDir" in one}
        claimed = {one["metadata"]["name"]: 0o2775 for one in stateful_set["spec"]["volumeClaimTemplates"]}
        volumes = {}
        for name, mode in (empty | claimed).items():
            volumes[name] = folder / name
            volumes[name].mkdir()
            os.chown(volumes[name], 0, spec["securityContext"]["fsGroup"])
            volumes[name].chmod(mode)
        for secret in (one for one in spec["volumes"] if "secret" in one):
            volumes[secret["name"]] = folder / secret["name"]
            volumes[secret["name"]].mkdir()
            for name, content in secrets[secret["secret"]["secretName"]].items():
                file = volumes[secret["name"]] / name
                file.write_bytes(content)
                os.chown(file, 0, spec["securityContext"]["fsGroup"])
                file.chmod(secret["secret"]["defaultMode"])
        return cls(spec, volumes)

    @property
    def group(self) -> int:
        """The group that its containers share."""
        return int(self.spec["securityContext"]["fsGroup"])

    def container(self, name: str) -> Manifest:
        """Return what the manifest says of a container."""
        both = [*self.spec.get("initContainers", []), *self.spec["containers"]]
        found: Manifest = next(one for one in both if one["name"] == name)
        return found

    def run_as(self, name: str, image: Image) -> Spec:
        """Return how a container runs here."""
        said = self.container(name)
        security = said["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not security["allowPrivilegeEscalation"]
        return Spec(
            image,
            said["args"],
            {one["name"]: ANY_PORT.sub("127.0.0.1:0", one["value"]) for one in said.get("env", [])},
            user=security["runAsUser"],
            group=security["runAsGroup"],
            groups=[self.group],
            mounts={mount["mountPath"]: self.volumes[mount["name"]] for mount in said["volumeMounts"]},
        )

    def pre_stop(self, name: str) -> list[str]:
        """Return the command that runs before a container is told to stop."""
        command: list[str] = self.container(name)["lifecycle"]["preStop"]["exec"]["command"]
        # The pause is for the cluster to forget the endpoint.
        return [part.replace("sleep 5; ", "") for part in command]
