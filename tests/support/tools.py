"""Programs that are not among the project's Python packages."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def missing(what: str) -> None:
    """Skip the test; fail it where everything was promised to be there."""
    if os.environ.get("CUSTOMMSG_TESTS_NEED_ALL"):
        pytest.fail(what)
    pytest.skip(what)


def tool(name: str, hint: str = "make test-deploy brings it") -> str:
    """Return the path of a program; skip the test where there is none."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not here: {hint}")
    return str(path)


def run(*command: str) -> str:
    """Run a program, and return what it printed; its failure is the test's."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def run_and_hear(*command: str) -> str:
    """Run a program, and return all it said, its remarks and warnings too; its failure is the test's."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
    return done.stdout
