"""The commands: their answers and errors, as recorded from lightningd."""

from __future__ import annotations

from pathlib import Path

import pytest

from custommsg_server.domain import wire
from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode
from support.devnode_wire import RawRpc

STRANGER = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""A point on the curve that no node has."""
SENT = {"status": "Message sent to connectd for delivery"}


@pytest.fixture
async def bobs_id(alice: DevNode, bob: DevNode) -> str:
    """Connect alice to bob."""
    return (await alice.connect(bob)).hex()


async def test_a_message_is_sent_and_arrives(rpc: RawRpc, alice: DevNode, bob: DevNode, bobs_id: str) -> None:
    """By name, by position, in digits of either case, from 2 to 65,535 bytes."""
    longest = (b"\x77\x79" + bytes(range(256)) * 256)[: wire.MAX_MESSAGE_SIZE]
    for message in (b"\x77\x79", b"\x77\x79\xaa\xbb", longest):
        assert await rpc.call("sendcustommsg", {"node_id": bobs_id, "msg": message.hex()}) == SENT
        assert await rpc.call("sendcustommsg", [bobs_id.upper(), message.hex().upper()]) == SENT
        for _ in range(2):
            received = await bob.next_message()
            assert (received.peer_id, received.message) == (alice.id, message)


async def test_check_runs_the_checks_and_sends_nothing(rpc: RawRpc, bob: DevNode, bobs_id: str) -> None:
    """Its success names the command."""
    done = {"command_to_check": "sendcustommsg"}
    named = {"command_to_check": "sendcustommsg", "node_id": bobs_id, "msg": "7779"}
    assert await rpc.call("check", named) == done
    assert await rpc.call("check", ["sendcustommsg", bobs_id, "7779"]) == done
    assert await rpc.call("sendcustommsg", [bobs_id, "777900"]) == SENT
    assert (await bob.next_message()).message == b"\x77\x79\0"


INTERNAL = (
    "Cannot send messages of type 18 (WIRE_PING). It is not possible to send messages that have a type"
    " managed internally since that might cause issues with the internal state tracking."
)
OFF_CURVE = "02" + "ff" * 32


@pytest.mark.parametrize("command", ["sendcustommsg", "check"])
@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"node_id": STRANGER, "msg": "7779"}, -32600, f"No such peer: {STRANGER}"),
        ({"node_id": STRANGER, "msg": "0012"}, -32600, INTERNAL),
        ({"node_id": STRANGER}, -32602, "missing required parameter: msg"),
        ({"msg": "7779"}, -32602, "missing required parameter: node_id"),
        (
            {"node_id": OFF_CURVE, "msg": "7779"},
            -32602,
            f"node_id: should be a node id: invalid token '\"{OFF_CURVE}\"'",
        ),
        (
            {"node_id": "02ff", "msg": "7779"},
            -32602,
            "node_id: should be a node id: invalid token '\"02ff\"'",
        ),
        ({"node_id": 5, "msg": "7779"}, -32602, "node_id: should be a node id: invalid token '5'"),
        (
            {"node_id": STRANGER, "msg": "7779", "foo": 1},
            -32602,
            "unknown parameter: foo, this may be caused by a failure to autodetect key=value-style"
            " parameters. Please try using the -k flag and explicit key=value pairs of parameters.",
        ),
    ],
)
async def test_what_lightningd_refuses_is_refused_with_its_texts(
    rpc: RawRpc, command: str, params: dict[str, object], code: int, message: str
) -> None:
    """`check` refuses the same."""
    if command == "check":
        params = {"command_to_check": "sendcustommsg", **params}
    assert await rpc.call(command, params) == {"code": code, "message": message}


async def test_too_many_positional_parameters_are_refused(rpc: RawRpc) -> None:
    """The count is in the text."""
    error = await rpc.call("sendcustommsg", [STRANGER, "7779", 1])
    assert error == {"code": -32602, "message": "too many parameters: got 3, expected 2"}


async def test_its_own_id_is_not_a_peer(rpc: RawRpc, alice: DevNode) -> None:
    """As recorded."""
    error = await rpc.call("sendcustommsg", [alice.id.hex(), "7779"])
    assert error == {"code": -32600, "message": f"No such peer: {alice.id.hex()}"}


async def test_a_peer_that_has_left_is_unknown_unless_it_is_remembered(
    rpc: RawRpc, alice: DevNode, bob: DevNode, bobs_id: str
) -> None:
    """lightningd keeps the peers with channels; `remember` stands for that."""
    await alice.disconnect(bob.id)
    unknown = {"code": -32600, "message": f"No such peer: {bobs_id}"}
    assert await rpc.call("sendcustommsg", [bobs_id, "7779"]) == unknown
    assert (await rpc.call("listpeers"))["peers"] == []
    alice.remember(bob.id)
    away = {"code": -32600, "message": "Peer is not connected"}
    assert await rpc.call("sendcustommsg", [bobs_id, "7779"]) == away
    assert (await rpc.call("listpeers"))["peers"] == [
        {"id": bobs_id, "connected": False, "num_channels": 1, "features": ""}
    ]


@pytest.mark.parametrize("number", sorted(wire.INTERNAL_TYPES))
async def test_every_internal_type_is_refused_by_its_name(rpc: RawRpc, number: int) -> None:
    """Whether the peer is known or not."""
    error = await rpc.call("sendcustommsg", [STRANGER, number.to_bytes(2, "big").hex()])
    assert error["code"] == -32600
    expected = f"Cannot send messages of type {number} ({wire.INTERNAL_TYPES[number]}). It is not possible"
    assert error["message"].startswith(expected)


@pytest.mark.parametrize("number", [7, 9])
async def test_peer_storage_is_not_internal(rpc: RawRpc, bobs_id: str, number: int) -> None:
    """As recorded."""
    assert await rpc.call("sendcustommsg", [bobs_id, number.to_bytes(2, "big").hex()]) == SENT


@pytest.mark.parametrize(
    "message", ["", "777", "zz", "77 79", "0x7779", "77" * 65_536, "77" * 100_002, 777, None, True, "7"]
)
async def test_a_message_that_kills_lightningd_is_refused_and_recorded(
    rpc: RawRpc, alice: DevNode, bobs_id: str, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it reaches the peer."""
    error = await rpc.call("sendcustommsg", {"node_id": bobs_id, "msg": message})
    assert error["code"] == -41000
    assert error["message"].startswith("real lightningd would have crashed here: sendcustommsg with ")
    assert alice.would_have_died == [error["message"]]
    assert [record.levelname for record in caplog.records if record.message == error["message"]] == ["ERROR"]
    alice.would_have_died.clear()


async def test_a_message_of_one_byte_is_refused_and_recorded(
    rpc: RawRpc, alice: DevNode, bobs_id: str
) -> None:
    """lightningd would send it, but a message has a type of two bytes."""
    error = await rpc.call("sendcustommsg", [bobs_id, "77"])
    assert error["code"] == -41000
    assert alice.would_have_died == [
        "real lightningd would have sent a message without a whole type: sendcustommsg with 1 bytes"
    ]
    alice.would_have_died.clear()


async def test_a_deadly_message_to_a_stranger_is_recorded_too(rpc: RawRpc, alice: DevNode) -> None:
    """It would have been deadly if the peer had been connected."""
    assert (await rpc.call("sendcustommsg", [STRANGER, ""]))["code"] == -41000
    assert len(alice.would_have_died) == 1
    alice.would_have_died.clear()


async def test_check_accepts_a_deadly_message_as_lightningd_does(rpc: RawRpc, bobs_id: str) -> None:
    """`check` does not protect from them."""
    checked = await rpc.call("check", ["sendcustommsg", bobs_id, ""])
    assert checked == {"command_to_check": "sendcustommsg"}


async def test_a_run_in_which_lightningd_would_have_died_fails(tmp_path: Path) -> None:
    """So that a test in which it happens does not pass."""
    with pytest.raises(devnode.WouldHaveDiedError, match="crashed here: because"):
        async with devnode.run(tmp_path) as node:
            node.record_death("real lightningd would have crashed here: because")


async def test_connect_tells_about_the_peer(rpc: RawRpc, bob: DevNode) -> None:
    """With the fields of doc/schemas/connect.json; a second call finds it connected."""
    expected = {
        "id": bob.id.hex(),
        "features": "a202",
        "direction": "out",
        "address": {"type": "ipv4", "address": "127.0.0.1", "port": bob.address.port},
    }
    assert await rpc.call("connect", [bob.id.hex(), "127.0.0.1", bob.address.port]) == expected
    assert await rpc.call("connect", {"id": f"{bob.id.hex()}@{bob.address}"}) == expected
    assert await rpc.call("connect", {"id": bob.id.hex()}) == expected
    assert await rpc.call("listpeers", {"id": bob.id.hex()}) == {
        "peers": [
            {
                "id": bob.id.hex(),
                "connected": True,
                "num_channels": 0,
                "netaddr": [str(bob.address)],
                "features": "a202",
            }
        ]
    }
    assert await rpc.call("listpeers", {"id": STRANGER}) == {"peers": []}


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ([STRANGER], 400, "Unable to connect, no address known for peer"),
        (
            [STRANGER, "127.0.0.1", 1],
            401,
            "All addresses failed: 127.0.0.1:1: Connection establishment: Connection refused. ",
        ),
        (["zz"], -32602, "id: should be a node id: invalid token '\"zz\"'"),
        ({"id": STRANGER, "port": 5}, -32602, "Can't specify port without host"),
        (
            {"id": f"{STRANGER}@h:1", "host": "h"},
            -32602,
            "Can't specify host as both xxx@yyy and separate argument",
        ),
        ({"id": f"{STRANGER}@h:x"}, -32602, "malformed host @part"),
        (
            [STRANGER, "127.0.0.1", "x"],
            -32602,
            "port: should be a 16-bit integer: invalid token '\"x\"'",
        ),
        ([STRANGER, "127.0.0.1", 0], -32602, "port: should be non-zero: invalid token '0'"),
    ],
)
async def test_connect_fails_with_lightningds_texts(
    rpc: RawRpc, params: object, code: int, message: str
) -> None:
    """Codes and texts of lightningd/connect_control.c and connectd."""
    assert await rpc.call("connect", params) == {"code": code, "message": message}


async def test_connect_to_an_impossible_host_fails(rpc: RawRpc) -> None:
    """A label of a name has at most 63 characters, so nobody is asked for this one."""
    error = await rpc.call("connect", [STRANGER, "x" * 64])
    assert error["code"] == -1
    assert error["message"].startswith(f"Host {'x' * 64}:19846 not valid: ")


async def test_connecting_with_a_wrong_key_says_so(rpc: RawRpc, bob: DevNode) -> None:
    """The responder closes the connection after act one."""
    error = await rpc.call("connect", [STRANGER, "127.0.0.1", bob.address.port])
    assert error["code"] == 401
    expected = (
        f"All addresses failed: {bob.address}: Cryptographic handshake: peer closed connection (wrong key?). "
    )
    assert error["message"] == expected


async def test_disconnect_ends_the_connection_on_both_sides(
    rpc: RawRpc, alice: DevNode, bob: DevNode, bobs_id: str
) -> None:
    """And answers once it has ended."""
    assert await rpc.call("disconnect", [bobs_id]) == {}
    assert len(alice.peers) == 0
    await bob.until_connected(alice.id, connected=False)
    again = await rpc.call("disconnect", {"id": bobs_id, "force": True})
    assert again == {"code": -32602, "message": f"Unknown peer '{bobs_id}'"}
    bad = await rpc.call("disconnect", ["02ff"])
    assert bad == {"code": -32602, "message": "id: invalid peer id: invalid token '\"02ff\"'"}


async def test_disconnect_of_a_remembered_peer_says_that_it_is_away(rpc: RawRpc, alice: DevNode) -> None:
    """lightningd knows it, because of its channel."""
    alice.remember(bytes.fromhex(STRANGER))
    assert await rpc.call("disconnect", [STRANGER]) == {"code": -1, "message": "Peer not connected"}
