"""The node as a whole: its directory, its stop and its crash, and the program around it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from custommsg_testing import devnode
from custommsg_testing.devnode import Address, DevNode, DirectoryError, MessagesLostError, Received
from custommsg_testing.devnode.received import ReceivedMessages


async def test_the_same_directory_is_the_same_node_again(tmp_path: Path, bob: DevNode) -> None:
    """Its key is kept, readable by its owner alone, and it connects and sends as before."""
    ids = set()
    for _ in range(2):
        async with devnode.run(tmp_path / "node") as node:
            ids.add(node.id)
            await node.connect(bob)
            await node.send(bob.id, b"\x77\x79")
            assert (await bob.next_message()).peer_id == node.id
    assert len(ids) == 1
    assert (tmp_path / "node" / "regtest" / "devnode_secret").stat().st_mode & 0o777 == 0o600


async def test_a_killed_node_says_nothing_and_can_be_started_again(tmp_path: Path, bob: DevNode) -> None:
    """As after kill -9: requests in flight stay unanswered, and the socket file stays."""
    async with devnode.run(tmp_path / "node") as node:
        await node.connect(bob)
        reader, writer = await asyncio.open_unix_connection(str(node.rpc_file))
        writer.write(b'{"jsonrpc":"2.0","id":1,"method":"waitblockheight","params":[1]}')
        writer.write(b'{"jsonrpc":"2.0","id":2,"method":"listpeers","params":[]}')
        await reader.readuntil(b"\n\n")
        await node.kill()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await bob.until_connected(node.id, connected=False)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(str(node.rpc_file))
    async with devnode.run(tmp_path / "node") as again:
        assert again.id == node.id
        await again.connect(bob)


async def test_a_directory_has_room_for_one_node_of_a_network(tmp_path: Path) -> None:
    """lightningd's pid file does the same."""
    async with devnode.run(tmp_path):
        with pytest.raises(DirectoryError, match="another node runs"):
            devnode.DevNode(devnode.Settings(tmp_path))
        async with devnode.run(tmp_path, network="signet") as other:
            assert other.rpc_file == tmp_path / "signet" / "lightning-rpc"


def test_a_real_nodes_directory_is_not_touched(tmp_path: Path) -> None:
    """Its key controls money."""
    (tmp_path / "regtest").mkdir()
    (tmp_path / "regtest" / "hsm_secret").write_bytes(bytes(32))
    with pytest.raises(DirectoryError, match="belongs to a real node"):
        devnode.DevNode(devnode.Settings(tmp_path))


async def test_a_damaged_key_is_an_error_and_not_a_new_node(tmp_path: Path) -> None:
    """Only a person can decide to give the key up."""
    async with devnode.run(tmp_path):
        pass
    (tmp_path / "regtest" / "devnode_secret").write_bytes(b"short")
    with pytest.raises(DirectoryError, match="does not hold a key of 32 bytes"):
        devnode.DevNode(devnode.Settings(tmp_path))


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    """With the names that there are."""
    with pytest.raises(ValueError, match="bitcoin, regtest, signet"):
        devnode.DevNode(devnode.Settings(tmp_path, network="mainnet"))


async def test_a_port_that_is_taken_is_an_error(tmp_path: Path, bob: DevNode) -> None:
    """And the directory is free again after it."""
    with pytest.raises(OSError, match="in use"):
        async with devnode.run(tmp_path, listen=str(bob.address)):
            pass
    async with devnode.run(tmp_path):
        pass


async def test_the_program_runs_until_it_is_stopped_by_rpc(tmp_path: Path, bob: DevNode) -> None:
    """It is ready once it is connected to its peers."""
    ready: asyncio.Future[DevNode] = asyncio.get_running_loop().create_future()
    peers = [f"{bob.id.hex()}@{bob.address}"]
    program = asyncio.create_task(devnode.serve(tmp_path, connect=peers, ready=ready.set_result))
    node = await asyncio.wait_for(ready, 10)
    await bob.until_connected(node.id)
    reader, writer = await asyncio.open_unix_connection(str(node.rpc_file))
    writer.write(b'{"jsonrpc":"2.0","id":1,"method":"stop","params":[]}')
    assert b"Shutdown complete" in await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await asyncio.wait_for(program, 10)


async def test_the_program_ends_cleanly_when_it_is_cancelled(tmp_path: Path, bob: DevNode) -> None:
    """As Ctrl-C does."""
    ready: asyncio.Future[DevNode] = asyncio.get_running_loop().create_future()
    program = asyncio.create_task(devnode.serve(tmp_path, ready=ready.set_result))
    node = await asyncio.wait_for(ready, 10)
    await node.connect(bob)
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program
    await bob.until_connected(node.id, connected=False)
    assert node.stopped.is_set()


async def test_waiting_for_a_message_that_does_not_come_times_out(bob: DevNode) -> None:
    """A test never hangs on it."""
    with pytest.raises(TimeoutError):
        await bob.next_message(timeout=0.01)


async def test_a_reader_that_missed_messages_is_told_so_once() -> None:
    """What is kept is bounded, and nothing is skipped in silence."""
    received = ReceivedMessages(limit=10_000)
    for number in range(100):
        received.put(Received(b"", bytes([0, number])))
    with pytest.raises(MessagesLostError, match="62 messages"):
        await received.next()
    assert (await received.next()).message == bytes([0, 62])
    assert received.count == 100
    received.clear()
    assert len(received) == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9735", Address("127.0.0.1", 9735)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:1", Address("localhost", 1)),
        ("localhost", Address("localhost", 19846)),
        ("::1", Address("::1", 19846)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    """Without a port, it gets the network's."""
    assert Address.parse(text, 19846) == address


@pytest.mark.parametrize("text", ["", ":1", "host:", "host:x", "host:65536", "host:-1"])
def test_a_text_that_is_not_an_address_is_refused(text: str) -> None:
    """There is no default port here. The error says what to write."""
    with pytest.raises(ValueError, match="is not an address; write host:port"):
        Address.parse(text)
