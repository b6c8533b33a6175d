"""`make lint` compares the contract with the baseline of the last release."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools/lint_protos.py"


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("lint_protos", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("old", "new", "is_compatible"),
    [
        ("  string status = 1;", "  string status = 1;\n  string note = 1000;", True),
        ("  string status = 1;", "  bytes status = 1;", False),
        ("  string status = 1;", "  string status = 1000;", False),
        ("  string status = 1;\n", "", False),
        ("  rpc GetInfo(", "  rpc DescribeNode(", False),
        ("  REASON_INVALID_NODE_ID = ", "  REASON_BAD_NODE_ID = ", False),
    ],
    ids=[
        "new field",
        "other type",
        "other number",
        "no field",
        "other name of an RPC",
        "other name of a reason",
    ],
)
def test_only_additions_to_the_contract_pass(tmp_path: Path, old: str, new: str, is_compatible: bool) -> None:
    """A client of the last release has to work with the new one."""
    tool = _tool()
    tool.make_workspace(tmp_path)
    contract = tmp_path / "proto/custommsg/v1/custommsg.proto"
    text = contract.read_text()
    assert old in text
    contract.write_text(text.replace(old, new, 1))
    assert (tool.compare(tmp_path) == 0) == is_compatible
