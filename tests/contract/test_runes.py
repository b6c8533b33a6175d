"""Runes: the embedded node judges as lightningd does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pyln.client import RpcError

from support import nodes

from .conftest import run_node

PEER = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
SEND = {"method": "sendcustommsg", "params": {"node_id": PEER, "msg": "9419abcd"}}

CASES: list[tuple[list[list[str]], dict[str, Any], str]] = [
    ([], SEND, ""),
    ([["method=sendcustommsg"]], SEND, ""),
    ([["method=sendcustommsg"]], {"method": "listpeers"}, "method is not equal to sendcustommsg"),
    ([["method=sendcustommsg"]], {}, "method not present"),
    ([["method^send"]], SEND, ""),
    ([["method$msg"], ["method~custom"]], SEND, ""),
    ([["method/sendcustommsg"]], SEND, "method is equal to sendcustommsg"),
    ([["method=a", "method=b"]], SEND, "method is not equal to a AND method is not equal to b"),
    ([["method=a", "method=sendcustommsg"]], SEND, ""),
    ([["pnamemsg^9419"]], SEND, ""),
    ([["pnamemsg^7779"]], SEND, "parameter msg does not start with 7779"),
    ([["pnamemsg^9419"]], {"method": "listpeers"}, "parameter msg not present"),
    ([["pnamemsg!"]], {"method": "listpeers", "params": {}}, ""),
    ([["pnamemsg!"]], SEND, "parameter msg is present"),
    ([["pnamemsg$cd"], ["pnamemsg~9ab"]], SEND, ""),
    ([["pnamemsg$00"]], SEND, "parameter msg does not end with 00"),
    ([["pnamemsg~00"]], SEND, "parameter msg does not contain 00"),
    ([["pnamemsg{9500"], ["pnamemsg}9400"]], SEND, ""),
    ([["pnamemsg{9419"]], SEND, "parameter msg is equal to or ordered after 9419"),
    ([["pnamemsg}95"]], SEND, "parameter msg is equal to or ordered before 95"),
    ([[f"pnamenode_id={PEER}"]], SEND, ""),
    ([[f"pnamenodeid={PEER}"]], SEND, ""),
    ([["pnamenode_id=03"]], SEND, "parameter node_id is not equal to 03"),
    ([["pnum=2"]], SEND, ""),
    ([["pnum<2"]], SEND, "number of parameters is greater or equal to 2"),
    ([["pnametype>37900"], ["pnametype<38000"]], {"method": "x", "params": {"type": 37913}}, ""),
    (
        [["pnametype>37913"]],
        {"method": "x", "params": {"type": 37913}},
        "parameter type is less or equal to 37913",
    ),
    ([["pnametype>1"]], {"method": "x", "params": {"type": "5"}}, "parameter type is not an integer field"),
    ([["pnametype>abc"]], {"method": "x", "params": {"type": 5}}, "abc is not a valid integer"),
    ([["parr0=a"]], {"method": "x", "params": ["a"]}, ""),
    ([["parr1=a"]], {"method": "x", "params": ["a"]}, "parameter #1 not present"),
    ([["time<1"]], SEND, "time is greater or equal to 1"),
    ([["time>1"]], SEND, ""),
    ([["id=02"]], SEND, "id not present"),
    ([["method#any words"]], SEND, ""),
    ([["rate=x"]], SEND, "malformed rate"),
    ([["rate>1"]], SEND, "rate operator must be ="),
    ([["per=1parsec"]], SEND, "malformed suffix"),
    (
        [["pnamea=x|y&z\\"]],
        {"method": "x", "params": {"a": "x|y&z"}},
        "parameter a is not equal to x|y&z\\\\",
    ),
]


@pytest.fixture
async def rune_node(node_kind: str, short_path: Path) -> AsyncIterator[nodes.Node]:
    """Run a node of that kind."""
    async with run_node(node_kind, short_path) as node:
        yield node


async def judged(node: nodes.Node, rune: str, **call: Any) -> tuple[int, str]:
    """Ask whether a rune permits a call; return the error, or 0 and nothing."""
    try:
        assert await asyncio.to_thread(node.rpc().call, "checkrune", {"rune": rune, **call}) == {
            "valid": True
        }
    except RpcError as error:
        return int(error.error["code"]), str(error.error["message"])
    return 0, ""


async def created(node: nodes.Node, restrictions: object, **more: Any) -> str:
    """Make a rune."""
    return str((await node.call("createrune", restrictions=restrictions, **more))["rune"])


async def test_each_condition_is_held_as_lightningd_holds_it(rune_node: nodes.Node) -> None:
    """The verdicts and the texts of the whole table."""
    for restrictions, call, complaint in CASES:
        verdict = await judged(rune_node, await created(rune_node, restrictions), **call)
        assert verdict == ((1502, f"Not permitted: {complaint}") if complaint else (0, "")), restrictions


async def test_a_rune_with_a_rate_is_refused_when_used_too_soon(rune_node: nodes.Node) -> None:
    """Each successful check is one use."""
    rune = await created(rune_node, [["rate=1"]])
    assert await judged(rune_node, rune, **SEND) == (0, "")
    assert await judged(rune_node, rune, **SEND) == (1502, "Not permitted: too soon")


async def test_a_rune_can_be_narrowed_and_not_widened(rune_node: nodes.Node) -> None:
    """What is derived from a rune has its id, and its restrictions, and more."""
    wide = await created(rune_node, [["method=sendcustommsg"]])
    narrow = await created(rune_node, [["pnamemsg^7779"]], rune=wide)
    assert (await judged(rune_node, narrow, **SEND))[0] == 1502
    assert await judged(rune_node, wide, **SEND) == (0, "")


@pytest.mark.parametrize("rune", ["", "zzz", "!" * 60, "A" * 40, "A" * 44])
async def test_what_is_no_rune_is_an_invalid_parameter(rune_node: nodes.Node, rune: str) -> None:
    """-32602, and no more is said."""
    code, text = await judged(rune_node, rune, **SEND)
    assert code == -32602
    assert text.startswith(
        ("rune: should be base64 string: invalid token", "rune: should have valid numeric")
    )


async def test_a_foreign_and_a_blacklisted_rune_are_not_authorized(rune_node: nodes.Node) -> None:
    """1501 and 1503."""
    rune = await created(rune_node, [])
    foreign = "AAAA" + rune[4:]
    assert await judged(rune_node, foreign, **SEND) == (1501, "Not authorized: Not derived from master")
    await rune_node.call("blacklistrune", start=0, end=9)
    assert await judged(rune_node, rune, **SEND) == (1503, "Not authorized: Blacklisted rune")
