"""The four distributions of this repository: what each declares, imports and requires."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Distribution:
    """One of our distributions.

    Args:
        folder: where its pyproject.toml is.
        package: the package that it installs.
    """

    folder: Path
    package: str

    @property
    def project(self) -> dict[str, Any]:
        """The table `project` of its pyproject.toml."""
        table: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        return table

    @property
    def name(self) -> str:
        """Its name on the package index."""
        return str(self.project["name"])

    def requirements(self, *extras: str) -> list[Requirement]:
        """Return what it requires, with these extras."""
        declared = list(self.project["dependencies"])
        for extra in extras:
            declared += self.project["optional-dependencies"][extra]
        return [Requirement(text) for text in declared]

    @property
    def extras(self) -> list[str]:
        """The names of its extras."""
        return list(self.project.get("optional-dependencies", {}))


OURS = [
    Distribution(PROJECT / "client", "custommsg"),
    Distribution(PROJECT / "cli", "custommsg_cli"),
    Distribution(PROJECT / "server", "custommsg_server"),
    Distribution(PROJECT / "testing", "custommsg_testing"),
]


def find(name: str) -> Distribution | None:
    """Return our distribution of this name."""
    return next((each for each in OURS if each.name == canonicalize_name(name)), None)


def dev_group() -> list[Requirement]:
    """Return what a contributor needs beside the distributions."""
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return [Requirement(text) for text in table["dependency-groups"]["dev"]]


def imported_names(files: Iterable[Path]) -> set[str]:
    """Return the dotted names that these files import: of `from a import b` it is `a.b`."""
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def providers(names: Iterable[str]) -> set[str]:
    """Return the distributions, ours among them, that provide these dotted names.

    Raises:
        LookupError: no installed distribution provides one of them.
    """
    found: set[str] = set()
    for name in names:
        top = name.partition(".")[0]
        if ours := next((each for each in OURS if each.package == top), None):
            found.add(ours.name)
        elif top not in sys.stdlib_module_names:
            found.add(_provider(name))
    return found


def _provider(name: str) -> str:
    # The longest known beginning decides: several distributions share google, opentelemetry and pyln.
    module = name
    while module not in _modules():
        module, dot, _ = module.rpartition(".")
        if not dot:
            raise LookupError(f"no installed distribution provides {name}")
    return _modules()[module]


@cache
def _modules() -> dict[str, str]:
    """Return the distribution of each importable module of this environment.

    A folder without a file of its own belongs to the distribution that has files in it, if that is only one.
    """
    modules: dict[str, str] = {}
    folders: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for file in distribution.files or ():
            if file.suffix in (".py", ".so"):
                *parents, last = [*file.parts[:-1], file.name.partition(".")[0]]
                modules[".".join(parents if last == "__init__" else [*parents, last])] = name
                for depth in range(1, len(parents) + 1):
                    folders.setdefault(".".join(parents[:depth]), set()).add(name)
    return {folder: next(iter(names)) for folder, names in folders.items() if len(names) == 1} | modules
