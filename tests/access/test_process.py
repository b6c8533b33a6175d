"""The real process: what it never logs, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from pathlib import Path
from typing import Any

import grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.access import macaroon
from support import nodes, processes
from support.every_rpc import Certificates, Metadata, rpcs, until_serving

from .conftest import MakeRune

PAYLOAD = b"\xab\xcda payload that nobody else may read"


async def test_no_rune_no_payload_and_no_key_is_ever_logged(
    embedded: nodes.Node, make_rune: MakeRune, certificates: Certificates
) -> None:
    """Even at level debug, for every RPC, whether the credentials are valid or not."""
    right, foreign = await make_rune(["pnamemsg^9419"]), "AAAA" + (await make_rune())[4:]
    near = right[:-4] + "!!!!"
    every: list[Metadata] = [
        (("rune", right),),
        (("rune", foreign),),
        (("rune", near),),
        (("macaroon", right.encode().hex()),),
        (("macaroon", near),),
        (("macaroon", macaroon.make(right).hex()),),
        (("macaroon", macaroon.make(right).hex()[:-2]),),
    ]
    files = ["--tls-cert", certificates.cert_file, "--tls-key", certificates.key_file]
    arguments = ("--listen", "127.0.0.1:0", "--rpc-file", embedded.rpc_file, "--log-level", "debug", *files)
    async with processes.server("serve", *map(str, arguments)) as program:
        address = json.loads(await program.line("gateway listening"))["addresses"][0]
        async with grpc.aio.secure_channel(address, certificates.client("none")) as channel:
            await until_serving(channel)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
            for metadata in every:
                for rpc in rpcs(embedded.peer.id):
                    await rpc.call(channel, metadata)
                for message in (b"\x94\x19" + PAYLOAD, b"\x77\x79" + PAYLOAD, b"\x00\x10" + PAYLOAD):
                    request = pb.SendCustomMsgRequest(
                        message=pb.OutboundMsg(peer_id=embedded.peer.id, msg=message)
                    )
                    call = stub.SendCustomMsg(request, metadata=metadata)
                    await asyncio.wait({asyncio.ensure_future(_ended(call))})
            await embedded.peer.send(embedded.id, b"\x94\x19" + PAYLOAD)
        program.process.send_signal(signal.SIGTERM)
        assert await program.process.wait() == 0
    said = "".join(program.lines)
    assert said.count("SendCustomMsg") > 10
    key = certificates.key_file.read_text().splitlines()[1]
    secrets = [
        right,
        foreign,
        near,
        right.encode().hex(),
        right[10:40],
        right.encode().hex()[20:60],
        key,
        key[5:30],
    ]
    forms = [PAYLOAD.hex(), base64.b64encode(PAYLOAD).decode()[4:20], "payload that nobody", repr(PAYLOAD)]
    assert [secret for secret in secrets + forms if secret in said] == []


async def _ended(call: Any) -> None:
    await call.wait_for_connection()
    await call.code()


async def test_sigterm_under_load_loses_no_call_that_was_accepted(
    embedded: nodes.Node, make_rune: MakeRune, tmp_path: Path
) -> None:
    """Messages answered with OK have reached the peer, refused ones have not, and it exits with 0 in time."""
    metadata = (("rune", await make_rune(["method=sendcustommsg"])),)
    sent: set[int] = set()
    refused: set[int] = set()
    codes: set[grpc.StatusCode] = set()
    numbers = iter(range(10_000_000))
    arguments = ("--listen", "127.0.0.1:0", "--rpc-file", str(embedded.rpc_file), "--no-receive")
    async with processes.server("serve", *arguments, "--drain-time", "10") as program:
        address = json.loads(await program.line("gateway listening"))["addresses"][0]
        async with grpc.aio.insecure_channel(address) as channel:
            await until_serving(channel)
            stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)

            async def call_until_refused() -> None:
                while True:
                    number = next(numbers)
                    message = b"\x94\x19" + number.to_bytes(4, "big")
                    request = pb.SendCustomMsgRequest(
                        message=pb.OutboundMsg(peer_id=embedded.peer.id, msg=message)
                    )
                    try:
                        await stub.SendCustomMsg(request, metadata=metadata)
                    except grpc.aio.AioRpcError as error:
                        codes.add(error.code())
                        refused.add(number)
                        return
                    sent.add(number)

            async def stream_until_refused() -> None:
                stream: Any = stub.SendCustomMsgStream(metadata=metadata)
                answered: set[int] = set()
                try:
                    while True:
                        message = pb.OutboundMsg(
                            number=(number := next(numbers)),
                            peer_id=embedded.peer.id,
                            msg=b"\x94\x19" + number.to_bytes(4, "big"),
                        )
                        await stream.write(pb.SendCustomMsgStreamRequest(messages=[message]))
                        refused.add(number)
                        for result in (await stream.read()).results:
                            (refused if result.HasField("error") else answered).add(result.number)
                            refused.difference_update(answered)
                except (grpc.aio.AioRpcError, AttributeError, asyncio.InvalidStateError):
                    pass  # the stream has ended: its last message has no result, and was not read
                sent.update(answered)

            callers = [asyncio.create_task(call_until_refused()) for _ in range(20)]
            callers += [asyncio.create_task(stream_until_refused()) for _ in range(5)]
            while len(sent) < 500:
                await asyncio.sleep(0)
            program.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await program.process.wait() == 0
                await asyncio.gather(*callers)
    received = [int.from_bytes((await embedded.peer.next_message()).payload, "big") for _ in range(len(sent))]
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    assert set(received) == sent
    assert refused.isdisjoint(received)
    assert len(sent) >= 500
