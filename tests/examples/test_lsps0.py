"""The example runs: two nodes, a gateway on each, one side asks and the other answers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg import aio
from custommsg_testing import devnode
from support.gateways import gateway

EXAMPLE = Path(__file__).parents[2] / "examples/lsps0.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("lsps0", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lsps0 = load()


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), *arguments, stdout=asyncio.subprocess.PIPE
    )


async def test_one_side_asks_and_the_other_answers(short_path: Path) -> None:
    """As the docstring says to run it, and after the answering side was away as well."""
    async with (
        devnode.run(short_path / "lsp") as lsp,
        devnode.run(short_path / "wallet") as wallet,
        gateway(lsp.rpc_file) as lsp_address,
        gateway(wallet.rpc_file) as wallet_address,
    ):
        await wallet.connect(lsp)
        for _ in range(2):
            serving = await start("--address", lsp_address, "serve")
            try:
                assert serving.stdout is not None
                assert await serving.stdout.readline() == b"Answering.\n"
                asking = await start("--address", wallet_address, "ask", lsp.id.hex())
                out, _ = await asking.communicate()
                assert (asking.returncode, json.loads(out)) == (0, {"protocols": [1, 2]})
            finally:
                serving.terminate()
                await serving.wait()
        async with aio.connect(wallet_address) as client, aio.connect(lsp_address) as at_lsp:
            serving_here = asyncio.create_task(lsps0.serve(at_lsp))
            with pytest.raises(RuntimeError, match="-32601"):
                await lsps0.ask(client, lsp.id.hex(), "lsps9.nothing")
            with pytest.raises(RuntimeError, match=r"'unrecognized': \['future'\]"):
                await lsps0.ask(client, lsp.id.hex(), future=1)
            serving_here.cancel()


ANSWERS = [
    (b"{}  {}", -32700),
    (b"[]", -32700),
    (b'{"id": "a\0"}', -32700),
    (b"[" * 65_000, -32700),
    (b'{"method": "x", "id": "1"}', -32601),
    (b'{"method": "lsps0.list_protocols", "params": [1, "a"], "id": "1"}', -32602),
]


@pytest.mark.parametrize(("payload", "code"), ANSWERS)
def test_a_bad_request_is_answered_with_its_code(payload: bytes, code: int) -> None:
    """As bLIP-50 has it."""
    assert lsps0.answer(payload)["error"]["code"] == code


@given(
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_a_peer_sends_the_answer_is_an_answer(payload: bytes) -> None:
    """A peer's message cannot stop the service."""
    found = lsps0.answer(payload)
    assert found is None or lsps0.answer(json.dumps(found).encode()) is None
