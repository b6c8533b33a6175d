"""What importing the client imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import custommsg
import custommsg_cli

# grpcio, protobuf and googleapis-common-protos; typing_extensions is grpcio's own requirement.
BASE = ["custommsg", "google", "grpc", "typing_extensions"]

# Imports a module where nothing but BASE and the standard library exists, and prints what came with it.
# (Merely to look afterwards would not do: grpc itself imports grpc_health and others where it finds them.)
IMPORT = """
import sys
allowed = {{*{base}, *sys.stdlib_module_names}}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)
before = set(sys.modules)
sys.meta_path.insert(0, Nothing())
import {module}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(names & set({base})))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "module", ["custommsg", "custommsg.aio", "custommsg.sync", "custommsg.v1.custommsg_pb2_grpc"]
)
def test_the_client_needs_nothing_but_the_base_install(module: str) -> None:
    """A service that installs the client gets three packages, and not the server."""
    done = python("-c", IMPORT.format(module=module, base=BASE))
    assert done.stderr == ""
    assert done.stdout.split()[0] == "custommsg"


def test_the_public_names_need_no_grpc() -> None:
    """Exceptions and values can be imported without grpc; the clients are imported when they are first used."""
    assert python("-c", IMPORT.format(module="custommsg", base=BASE)).stdout.split() == ["custommsg"]


def test_every_public_name_is_there() -> None:
    """__all__ has what can be imported, and other names do not resolve."""
    for name in custommsg.__all__:
        assert getattr(custommsg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        custommsg.nothing  # noqa: B018 - the access is the test


def test_the_package_is_typed() -> None:
    """Type checkers read the client's annotations."""
    assert (Path(custommsg.__file__).parent / "py.typed").exists()


def test_the_command_uses_only_the_public_client() -> None:
    """What the command needs, another program may need, too."""
    private = [
        (file.name, name)
        for file in Path(custommsg_cli.__file__).parent.glob("*.py")
        for name in imported(file)
        if name.startswith("custommsg._") or name == "custommsg.v1"
    ]
    assert private == []


def imported(file: Path) -> list[str]:
    """Return the names that a module imports."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
