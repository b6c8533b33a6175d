"""The addresses on which the gateway listens."""

from __future__ import annotations

import stat
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.domain.address import Address, ListenError
from support.gateways import gateway


@given(st.text() | st.from_regex(r"[\[\]a-z0-9:./]+", fullmatch=True))
def test_an_address_is_read_or_refused(text: str) -> None:
    """A valid address is printed as an equivalent one."""
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/tmp/s", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("gateway.example:1", False),
    ],
)
def test_only_loopback_and_unix_sockets_are_local(text: str, local: bool) -> None:
    """Host names may belong to other machines, except localhost."""
    assert Address.parse(text).is_local is local


async def test_a_unix_socket_is_its_owners_alone(rpc_file: Path, tmp_path: Path) -> None:
    """Mode 0600, and it serves calls."""
    path = tmp_path / "gateway.sock"
    async with gateway(rpc_file, listen=(f"unix:{path}",)) as address:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with grpc.aio.insecure_channel(address) as channel:
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            assert not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up


async def test_an_address_that_is_taken_is_an_error_with_its_name(rpc_file: Path, tmp_path: Path) -> None:
    """A port or a socket of another gateway is neither shared nor taken over."""
    sock = f"unix:{tmp_path}/gateway.sock"
    async with gateway(rpc_file, listen=("127.0.0.1:0", sock)) as address:
        for taken in (address, sock):
            with pytest.raises(ListenError, match="Cannot listen"):
                async with gateway(rpc_file, listen=(taken,)):
                    pass
