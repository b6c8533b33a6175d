"""The calls of both clients, over a real connection."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import grpc
import pytest

import custommsg
from custommsg.v1 import custommsg_pb2 as pb
from support.client_gateway import NODE, PEER, QUEUED, ScriptedGateway, hang, queue, reply, run


def outbound(msg: bytes, **more: Any) -> pb.OutboundMsg:
    return pb.OutboundMsg(peer_id=PEER, msg=msg, **more)


SPELLINGS: list[tuple[Any, dict[str, Any]]] = [
    (PEER, {"type": 37913, "payload": b"hello"}),
    (PEER.hex(), {"type": 37913, "payload": bytearray(b"hello")}),
    (PEER.hex().upper(), {"msg": b"\x94\x19hello"}),
    (bytearray(PEER), {"msg": "941968656c6c6f"}),
    (memoryview(PEER), {"msg": "941968656C6C6F"}),
]


@pytest.mark.parametrize(("peer", "message"), SPELLINGS)
async def test_every_spelling_of_a_message_sends_the_same_bytes(
    client: Any, gateway: ScriptedGateway, peer: Any, message: dict[str, Any]
) -> None:
    """Node ids and messages may be given as bytes or hex, and the type apart from the payload."""
    gateway.script.append(queue)
    assert await client("send", peer, **message) == custommsg.Sent(status=QUEUED, type=37913)
    assert gateway.requests == [pb.SendCustomMsgRequest(message=outbound(b"\x94\x19hello"))]


async def test_a_payload_may_be_left_out(client: Any, gateway: ScriptedGateway) -> None:
    """A message of a type alone is a message."""
    gateway.script.append(queue)
    await client("send", PEER, type=40001)
    assert gateway.requests[0].message.msg == (40001).to_bytes(2, "big")


async def test_check_asks_to_validate_only(client: Any, gateway: ScriptedGateway) -> None:
    """A check sets validate_only, and its result cannot be mistaken for a send's."""
    gateway.script.append(queue)
    assert await client("check", PEER, msg="9419") == custommsg.Checked(status=QUEUED, type=0x9419)
    assert gateway.requests == [pb.SendCustomMsgRequest(message=outbound(b"\x94\x19"), validate_only=True)]


@pytest.mark.parametrize("node_id", [NODE, NODE.hex()])
async def test_our_node_can_be_named(client: Any, gateway: ScriptedGateway, node_id: bytes | str) -> None:
    """A gateway may serve several nodes; without a name it is the gateway's only one."""
    gateway.script.extend([queue, queue])
    await client("send", PEER, msg="9419", node_id=node_id)
    await client("check", PEER, msg="9419", node_id=node_id)
    for method, response in (
        ("peers", pb.ListPeersResponse()),
        ("info", pb.GetInfoResponse()),
        ("inbox", pb.GetInboxResponse()),
    ):
        gateway.script.append(reply(response))
        await client(method, node_id=node_id)
    assert [request.message.node_id for request in gateway.requests[:2]] == [NODE, NODE]
    assert [request.node_id for request in gateway.requests[2:]] == [NODE, NODE, NODE]
    with pytest.raises(custommsg.InvalidRequest, match="custommsg info") as caught:
        await client("peers", node_id=NODE[:32])
    assert [violation.field for violation in caught.value.violations] == ["node_id"]


async def test_peers_come_as_plain_values(client: Any, gateway: ScriptedGateway) -> None:
    """No protobuf leaves the client."""
    peer = pb.Peer(peer_id=PEER, peer_id_hex=PEER.hex(), connected=True, address="1.2.3.4:5", num_channels=3)
    gateway.script.append(reply(pb.ListPeersResponse(peers=[peer])))
    (found,) = await client("peers")
    assert found == custommsg.Peer(peer_id=PEER, connected=True, address="1.2.3.4:5", num_channels=3)
    assert found.peer_id_hex == PEER.hex()


async def test_lists_are_read_to_the_last_page(client: Any, gateway: ScriptedGateway) -> None:
    """The caller sees one list; the next page is asked for with the token of the last one."""
    peers = [pb.Peer(peer_id=bytes([2, n]) * 16 + b"\0") for n in range(3)]
    consumers = [pb.Consumer(name=f"c{n}") for n in range(3)]
    for n, token in enumerate(["a", "b", ""]):
        gateway.script.append(reply(pb.ListPeersResponse(peers=[peers[n]], next_page_token=token)))
    for n, token in enumerate(["c", "d", ""]):
        gateway.script.append(
            reply(pb.ListConsumersResponse(consumers=[consumers[n]], next_page_token=token))
        )
    assert [peer.peer_id for peer in await client("peers")] == [peer.peer_id for peer in peers]
    assert [consumer.name for consumer in await client("consumers")] == ["c0", "c1", "c2"]
    assert [request.page_token for request in gateway.requests] == ["", "a", "b", "", "c", "d"]


async def test_info_of_a_node_that_answers(client: Any, gateway: ScriptedGateway) -> None:
    """Info holds the gateway, the link and the node."""
    node = pb.Node(node_id=PEER, node_id_hex=PEER.hex(), alias="alice", network="regtest", version="v26.06")
    gateway.script.append(reply(pb.GetInfoResponse(gateway_version="1", node_link_up=True, node=node)))
    told = await client("info")
    expected = custommsg.Node(node_id=PEER, alias="alice", network="regtest", version="v26.06")
    assert told == custommsg.Info(gateway_version="1", node_link_up=True, node=expected)
    assert told.node.node_id_hex == PEER.hex()


async def test_info_of_a_node_never_seen_has_none(client: Any, gateway: ScriptedGateway) -> None:
    """A node that never answered is None, not a node full of empty fields."""
    gateway.script.append(reply(pb.GetInfoResponse(gateway_version="1")))
    assert await client("info") == custommsg.Info(gateway_version="1", node_link_up=False, node=None)


async def test_each_of_many_concurrent_sends_gets_its_own_answer(
    client: Any, gateway: ScriptedGateway
) -> None:
    """One client serves many callers at once."""
    gateway.script.extend([queue] * 100)
    answers = await asyncio.gather(*(client("send", PEER, type=40000 + number) for number in range(100)))
    assert [answer.type for answer in answers] == list(range(40000, 40100))


@pytest.mark.parametrize(("given", "expected"), [(None, 10.0), (3.0, 3.0), (float("inf"), 365 * 86_400)])
async def test_the_timeout_reaches_the_gateway(
    client: Any, gateway: ScriptedGateway, given: float | None, expected: float
) -> None:
    """The gateway sees the deadline of the call, or the client's own; infinity is long, not past."""
    gateway.script.append(queue)
    await client("send", PEER, msg="9419", timeout=given)
    assert gateway.time_left[0] == pytest.approx(expected, rel=0.2)  # on the wire it is rounded up


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_an_invalid_timeout_is_refused(connect: Any, client: Any, timeout: float) -> None:
    """A call without time cannot succeed: that is a mistake in the program."""
    with pytest.raises(ValueError, match="above 0"):
        await client("send", PEER, msg="9419", timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        connect("127.0.0.1:1", timeout=timeout)


async def test_a_unix_socket_is_an_address(connect: Any, tmp_path: Path) -> None:
    """The gateway may listen on a socket in the file system."""
    async with run(f"unix:{tmp_path}/g.sock") as gateway:
        gateway.script.append(queue)
        assert (await connect(gateway.address)("send", PEER, msg="9419")).type == 0x9419


async def test_credentials_secure_the_channel(connect: Any) -> None:
    """A gateway that wants credentials is reached with them, and not without."""
    async with run(credentials=grpc.local_server_credentials(grpc.LocalConnectionType.LOCAL_TCP)) as gateway:
        gateway.script.append(queue)
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
        assert await connect(gateway.address, credentials=credentials)("send", PEER, msg="9419")


async def test_a_cancelled_send_is_cancelled_at_the_gateway(gateway: ScriptedGateway) -> None:
    """Cancellation of the task reaches the gateway, and stays a CancelledError."""
    gone = asyncio.Event()

    async def wait(request: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: gone.set())
        await hang(request, context)

    gateway.script.append(wait)
    async with custommsg.aio.connect(gateway.address) as client:
        task = asyncio.create_task(client.send(PEER, msg="9419"))
        await gateway.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_leaving_the_with_block_closes_the_client(gateway: ScriptedGateway) -> None:
    """A closed client says that it is closed."""
    with custommsg.sync.connect(gateway.address) as blocking:
        pass
    with pytest.raises(ValueError, match="closed"):
        blocking.info()
    async with custommsg.aio.connect(gateway.address) as client:
        pass
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await client.info()


def test_both_clients_have_the_same_names_and_parameters() -> None:
    """A program is moved from one client to the other by adding or removing `await`."""

    def interface(kind: Any) -> dict[str, list[str]]:
        return {
            name: [str(parameter) for parameter in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert interface(custommsg.aio.Client) == interface(custommsg.sync.Client)
    senders = [interface(kind) for kind in (custommsg.aio.Sender, custommsg.sync.Sender)]
    for sender in senders:
        del sender["__init__"]  # a caller gets a sender from the client
        # An AsyncIterable exists in asyncio only.
        sender["send_many"] = [one.replace(" | AsyncIterable[Outbound]", "") for one in sender["send_many"]]
    assert senders[0] == senders[1]
    assert inspect.signature(custommsg.aio.connect) == inspect.signature(custommsg.sync.connect)
