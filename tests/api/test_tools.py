"""Generic tools list, describe and call the service through reflection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from custommsg_server.api.service import SERVICE
from support.gateways import gateway
from support.keys import node_id
from support.standin import SENT, StandIn

BIN = Path(sys.executable).parent
REQUEST = json.dumps({"message": {"peer_id_hex": node_id().hex(), "msg_hex": "9c4168656c6c6f"}})


@pytest.fixture
async def address(node: StandIn) -> AsyncIterator[str]:
    """Run a gateway; return its address."""
    async with gateway(node.rpc_file, receive=False) as address:
        yield address


async def run(program: str, *arguments: str) -> tuple[int, str]:
    """Run a program of this environment; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        BIN / program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def grpcurl(address: str, *words: str, data: str = "") -> tuple[int, str]:
    """Run grpcurl."""
    return await run("grpcurl", "-plaintext", *(["-d", data] if data else []), address, *words)


async def buf_curl(address: str, *words: str, data: str = "") -> tuple[int, str]:
    """Run buf curl, which uses reflection v1, then v1alpha."""
    more = ["--data", data] if data else []
    return await run("buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", *more, *words)


async def test_grpcurl_lists_describes_and_calls(address: str, node: StandIn) -> None:
    """With hex text, as a person would type it."""
    assert SERVICE in (await grpcurl(address, "list"))[1]
    status, described = await grpcurl(address, "describe", f"{SERVICE}.SendCustomMsg")
    assert status == 0
    assert "rpc SendCustomMsg ( .custommsg.v1.SendCustomMsgRequest )" in described
    status, answer = await grpcurl(address, f"{SERVICE}/SendCustomMsg", data=REQUEST)
    assert (status, json.loads(answer)) == (0, {"status": SENT["status"], "type": 40001})
    assert node.sent()[0]["params"] == {"node_id": node_id().hex(), "msg": "9c4168656c6c6f"}


async def test_grpcurl_shows_why_a_call_failed(address: str) -> None:
    """The exit status is 64 + the code; the details are readable."""
    poison = json.dumps({"message": {"peer_id_hex": node_id().hex(), "msg_hex": ""}})
    status, answer = await grpcurl(address, f"{SERVICE}/SendCustomMsg", data=poison)
    assert status == 64 + 3
    assert "InvalidArgument" in answer
    assert "INVALID_MESSAGE" in answer


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_curl_lists_describes_and_calls(address: str, version: str) -> None:
    """Through reflection in both of its versions."""
    reflection = ("--reflect-protocol", version)
    url = f"http://{address}"
    assert SERVICE in (await buf_curl(address, *reflection, "--list-services", url))[1]
    methods = await buf_curl(address, *reflection, "--list-methods", url)
    assert f"{SERVICE}/SubscribeCustomMsgs" in methods[1]
    status, answer = await buf_curl(address, *reflection, f"{url}/{SERVICE}/SendCustomMsg", data=REQUEST)
    assert (status, json.loads(answer)) == (0, {"status": SENT["status"], "type": 40001})
