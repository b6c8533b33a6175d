"""What the distributions declare is what they import, and what the locks hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.distributions import OURS, PROJECT, Distribution, dev_group, find, imported_names, providers

ARRIVES_WITH = {"coincurve-cp314-fix": "pyln-proto"}
"""coincurve comes under this name. A second distribution of it would overwrite the first one's files."""


@pytest.fixture(params=OURS, ids=lambda each: each.name)
def distribution(request: pytest.FixtureRequest) -> Distribution:
    """Return each of our distributions."""
    each: Distribution = request.param
    return each


def imported(distribution: Distribution) -> set[str]:
    """Return the names of the other distributions that a distribution's code imports."""
    files = (distribution.folder / distribution.package).rglob("*.py")
    names = providers(imported_names(files)) - {distribution.name}
    return {ARRIVES_WITH.get(name, name) for name in names}


def declared(distribution: Distribution) -> list[str]:
    """Return the names that a distribution requires, extras included, as often as it declares them."""
    return [canonicalize_name(each.name) for each in distribution.requirements(*distribution.extras)]


def locked(name: str) -> dict[str, Version]:
    """Return the versions in a lock, by name."""
    text = (PROJECT / "requirements" / name).read_text()
    return {
        canonicalize_name(found[1]): Version(found[2])
        for found in re.finditer(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def unsatisfied(requirements: list[Requirement], lock: dict[str, Version]) -> list[str]:
    """Return the requirements that a lock does not satisfy; our own distributions are in no lock."""
    return [
        str(each)
        for each in requirements
        if find(each.name) is None
        and not each.specifier.contains(lock.get(canonicalize_name(each.name), Version("0")))
    ]


def test_every_imported_package_is_declared(distribution: Distribution) -> None:
    """Nobody relies on what somebody else's requirement happens to bring."""
    assert imported(distribution) - set(declared(distribution)) == set()


def test_no_unused_package_is_declared(distribution: Distribution) -> None:
    """An extra may name another of our distributions, for who looks for it there."""
    extras = {name for name in declared(distribution) if find(name)}
    assert set(declared(distribution)) - extras - imported(distribution) == set()


def test_no_package_is_declared_twice(distribution: Distribution) -> None:
    """Two declarations of one package drift apart."""
    assert sorted(declared(distribution)) == sorted(set(declared(distribution)))


def test_coincurve_is_declared_and_locked_nowhere() -> None:
    """It arrives with pyln-proto as coincurve-cp314-fix, which installs the same files."""
    assert [each.name for each in OURS if "coincurve" in declared(each)] == []
    assert "coincurve" not in locked("dev.txt")


def test_the_distributions_have_one_version_and_require_each_other_in_it() -> None:
    """They are released together."""
    versions = {each.project["version"] for each in OURS}
    assert len(versions) == 1
    pinned = {
        str(required.specifier)
        for each in OURS
        for required in each.requirements(*each.extras)
        if find(required.name)
    }
    assert pinned == {f"=={version}" for version in versions}


def test_the_license_is_in_every_distribution(distribution: Distribution) -> None:
    """A wheel can only hold what is in its folder, so that each has a copy."""
    assert (distribution.folder / "LICENSE").read_text() == (PROJECT / "LICENSE").read_text()


def test_a_contributors_lock_holds_what_everything_requires() -> None:
    """All extras, and the dependency group dev. Run make lock when this fails."""
    required = [each for ours in OURS for each in ours.requirements(*ours.extras)] + dev_group()
    assert unsatisfied(required, locked("dev.txt")) == []


def test_the_images_lock_holds_what_the_server_requires() -> None:
    """In the versions that the tests ran with. Run make lock when this fails."""
    server, client = find("custommsg-server"), find("custommsg")
    assert server is not None
    assert client is not None
    lock, tested = locked("server.txt"), locked("dev.txt")
    assert unsatisfied(server.requirements("uvloop") + client.requirements(), lock) == []
    assert {name: version for name, version in lock.items() if tested.get(name) != version} == {}


def test_what_the_rest_of_the_repository_imports_is_declared() -> None:
    """Tests, tools, benchmarks and examples run in a contributor's environment."""
    folders = ("tests", "tools", "benchmarks", "examples", "custommsg-plugin")
    files = [file for folder in folders for file in (PROJECT / folder).rglob("*.py") if runs_here(file)]
    own = {"benchmarks", *(file.stem for file in files), *(file.parent.name for file in files)}
    names = {name for name in imported_names(files) if name.partition(".")[0] not in own}
    known = {canonicalize_name(each.name) for each in dev_group()} | {each.name for each in OURS}
    known |= {name for ours in OURS for name in declared(ours)}
    assert {ARRIVES_WITH.get(name, name) for name in providers(names)} - known == set()


def runs_here(file: Path) -> bool:
    """Leave out programs with an environment of their own, and what these environments hold."""
    elsewhere = {
        "node_modules",
        ".venv",
        "gl_client",
        "lnd_grpc_client",
        "pyln_grpc_proto",
        "generate.py",
        "generate_sync.py",
    }
    return elsewhere.isdisjoint(file.parts)
