"""Whatever a caller sends, nothing that could harm the node is written to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api.status import CODES, DETAILS_KEY
from custommsg_server.domain import wire
from custommsg_server.domain.errors import Reason
from support import standin
from support.gateways import gateway
from support.keys import NOT_A_POINT, node_id

peers = (
    st.builds(
        lambda raw: {"peer_id": raw}, st.sampled_from([node_id(), NOT_A_POINT]) | st.binary(max_size=40)
    )
    | st.builds(
        lambda text: {"peer_id_hex": text},
        st.sampled_from([node_id().hex(), "", "zz"]) | st.text(max_size=70),
    )
    | st.just({})
)
sizes = st.sampled_from([0, 1, 2, 3, 65_532, 65_533, 65_534, 65_535, 65_536, 65_537, 100_002])
internal = st.sampled_from(sorted(wire.INTERNAL_TYPES))
raw_messages = (
    st.binary(max_size=100)
    | st.builds(lambda size, first: bytes([first]) * size, sizes, st.integers(0, 255))
    | internal.map(lambda number: number.to_bytes(2, "big"))
)
messages = (
    raw_messages.map(lambda raw: {"msg": raw})
    | raw_messages.map(lambda raw: {"msg_hex": raw.hex()})
    | st.text(max_size=20).map(lambda text: {"msg_hex": text})
    | st.text("0123456789abcdefABCDEF \n", max_size=20).map(lambda text: {"msg_hex": text})
    | st.builds(
        lambda number, payload: {"typed_msg": pb.TypedMsg(type=number, payload=payload)},
        st.integers(0, 2**32 - 1) | internal | st.just(40_001),
        raw_messages,
    )
    | st.just({})
)
requests: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda peer, message, check: {"message": pb.OutboundMsg(**peer | message), "validate_only": check},
    peers,
    messages,
    st.booleans(),
)

GOOD: dict[str, Any] = {"message": pb.OutboundMsg(peer_id=node_id(), msg=b"\x9c\x41hi")}


def check_row_of_the_error_table(error: grpc.aio.AioRpcError) -> None:
    """The code and the reason of a failed call belong together."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())[DETAILS_KEY])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert CODES[Reason[info.reason]] is error.code()
    assert error.details()


def check_safe(request: standin.Request) -> None:
    """The written request is safe for lightningd: a node id, and a message that does not crash it."""
    raw = bytes.fromhex(request["params"]["msg"])
    assert raw.hex() == request["params"]["msg"]
    assert 2 <= len(raw) <= 65_535
    assert int.from_bytes(raw[:2], "big") not in wire.INTERNAL_TYPES
    assert wire.parse_node_id_hex(request["params"]["node_id"])


def test_nothing_that_could_harm_the_node_is_ever_written(tmp_path: Path) -> None:
    """Arbitrary bytes, lengths, types and texts, through a real channel to a recording node."""
    with asyncio.Runner() as runner:

        async def start() -> Any:
            node = standin.running(tmp_path / "rpc")
            recorded = await node.__aenter__()
            relay = gateway(recorded.rpc_file)
            channel = grpc.aio.insecure_channel(await relay.__aenter__())
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            while not (await stub.GetInfo(pb.GetInfoRequest())).node_link_up:
                await asyncio.sleep(0.01)
            return recorded, stub, channel, relay, node

        recorded, stub, channel, relay, node = runner.run(start())
        outcomes: dict[str, int] = {}

        @example([GOOD] * 20)  # chance alone draws few that pass
        @given(st.lists(requests, min_size=1, max_size=20))
        @settings(max_examples=150)
        def run(some: list[dict[str, Any]]) -> None:
            async def calls() -> list[Any]:
                made = (stub.SendCustomMsg(pb.SendCustomMsgRequest(**one)) for one in some)
                return await asyncio.gather(*made, return_exceptions=True)

            recorded.requests.clear()
            for outcome in runner.run(calls()):
                if isinstance(outcome, pb.SendCustomMsgResponse):
                    outcomes["ok"] = outcomes.get("ok", 0) + 1
                else:
                    assert isinstance(outcome, grpc.aio.AioRpcError), outcome
                    check_row_of_the_error_table(outcome)
                    outcomes[outcome.code().name] = outcomes.get(outcome.code().name, 0) + 1
            for request in recorded.requests:
                if request["method"] in ("sendcustommsg", "check"):
                    check_safe(request)

        async def stop() -> None:
            await channel.close()
            await relay.__aexit__(None, None, None)
            await node.__aexit__(None, None, None)

        try:
            run()
            assert outcomes["ok"] > 10
            assert outcomes["INVALID_ARGUMENT"] > 10
        finally:
            # Else the runner ends nested generators out of order, on which Python 3.11 crashes and hides the failure.
            runner.run(stop())
