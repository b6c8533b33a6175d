"""Environments that hold one distribution with what it requires, and nothing else. No network is needed.

What is required is taken from the environment that runs the tests: the files of those packages are linked. So a package
that is installed here, but is not required, is missing there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.distributions import Distribution, find


@dataclass(frozen=True)
class Environment:
    """An environment of its own.

    Args:
        folder: where it is.
        commands: the commands that the distributions have installed, sorted.
    """

    folder: Path
    commands: list[str]

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its commands to the end, away from the repository."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.folder / "bin" / command, *arguments],
            cwd=self.folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def python(self, source: str) -> str:
        """Run Python, and return what it prints, errors included."""
        done = self.run("python", "-W", "error", "-c", source)
        return done.stdout + done.stderr


def install(distribution: Distribution, folder: Path) -> Environment:
    """Make an environment in `folder`, and install the distribution there as `pip install` does."""
    ours, others = _closure(distribution)
    wheels = [_wheel(each, folder / "wheels") for each in ours]
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    before = set((environment / "bin").iterdir())
    _link(others, environment)
    _pip(environment, "install", "--no-index", "--no-deps", *map(str, wheels))
    _pip(environment, "check")
    commands = set((environment / "bin").iterdir()) - before
    return Environment(environment, sorted(command.name for command in commands))


def _closure(distribution: Distribution) -> tuple[list[Distribution], set[str]]:
    """Return which of our distributions it takes, itself included, and the names of all others."""
    ours, others = [distribution], set[str]()
    todo = distribution.requirements()
    while todo:
        required = todo.pop()
        name = canonicalize_name(required.name)
        if (mine := find(name)) is not None:
            if mine not in ours:
                ours.append(mine)
                todo += mine.requirements()
        elif name not in others:
            others.add(name)
            todo += _requirements(required)
    return ours, others


def _requirements(of: Requirement) -> Iterable[Requirement]:
    """Return what an installed distribution requires here, with the extras that are asked for."""
    for text in metadata.requires(of.name) or ():
        required = Requirement(text)
        if required.marker is None or any(
            required.marker.evaluate({"extra": extra}) for extra in ("", *of.extras)
        ):
            yield required


def _wheel(distribution: Distribution, folder: Path) -> Path:
    """Build the distribution's wheel from its source archive, as a release is built."""
    _hatchling(distribution.folder, "sdist", folder)
    stem = f"{distribution.package}-{distribution.project['version']}"
    with tarfile.open(folder / f"{stem}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    _hatchling(folder / stem, "wheel", folder)
    return folder / f"{stem}-py3-none-any.whl"


def _hatchling(source: Path, target: str, folder: Path) -> None:
    _run(
        sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=source
    )


def _pip(environment: Path, *arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "--quiet", *arguments)


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _link(names: Iterable[str], environment: Path) -> None:
    [packages] = environment.glob("lib/python*/site-packages")
    for name in names:
        for file in metadata.files(name) or ():
            if ".." not in file.parts:  # a command of that package
                link = packages / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.locate())
