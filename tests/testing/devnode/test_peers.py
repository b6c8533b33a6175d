"""Peers: how connections begin and end, and the messages on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyln.proto.primitives import PrivateKey

from custommsg_server.domain.errors import RelayError
from custommsg_testing import devnode
from custommsg_testing.devnode import DevNode, PeerError, Received, Settings, bolt1, noise, peer
from support.devnode_wire import REGTEST, raw_peer


async def test_messages_pass_in_both_directions_unchanged_and_in_order(alice: DevNode, bob: DevNode) -> None:
    """Enough of them for the keys to change several times in each direction."""
    await alice.connect(bob)
    sizes = [2, 3, 1000, 65_535, *range(2, 2500)]
    messages = [(b"\x77\x79" + n.to_bytes(4, "big") + bytes(size))[:size] for n, size in enumerate(sizes)]

    async def send(node: DevNode, to: DevNode) -> None:
        for message in messages:
            await node.send(to.id, message)

    async def receive(node: DevNode, sender: DevNode) -> None:
        for message in messages:
            assert await node.next_message() == Received(sender.id, message)

    await asyncio.gather(send(alice, bob), send(bob, alice), receive(alice, bob), receive(bob, alice))


async def test_a_peer_can_answer_from_its_callback(tmp_path: Path, alice: DevNode) -> None:
    """As the peer of `custommsg-server try` does. `async for` yields what comes back."""

    async def echo(node: DevNode, received: Received) -> None:
        await node.send(received.peer_id, received.message)

    async with devnode.run(tmp_path / "echo", on_message=echo) as other:
        await alice.connect(other)
        for n in range(3):
            await alice.send(other.id, b"\x77\x79" + bytes([n]))
        payloads = []
        async for received in alice.received:
            assert received.type == 0x7779
            payloads.append(received.payload)
            if len(payloads) == 3:
                break
    assert payloads == [b"\0", b"\1", b"\2"]


async def test_a_callback_that_fails_ends_the_connection_and_is_logged(
    tmp_path: Path, alice: DevNode, caplog: pytest.LogCaptureFixture
) -> None:
    """With its stack trace."""

    def fail(node: DevNode, received: Received) -> None:
        raise ValueError("oops")

    async with devnode.run(tmp_path / "other", on_message=fail) as other:
        await alice.connect(other)
        await alice.send(other.id, b"\x77\x79")
        await alice.until_connected(other.id, connected=False)
    assert "on_message failed" in caplog.text


@pytest.mark.parametrize("message", [b"", b"\x77", b"\0\x12", bytes(65_536)])
async def test_the_library_refuses_to_send_an_invalid_message(
    alice: DevNode, bob: DevNode, message: bytes
) -> None:
    """By the rules of `wire`."""
    await alice.connect(bob)
    with pytest.raises(RelayError):
        await alice.send(bob.id, message)


async def test_sending_to_a_peer_that_is_not_connected_fails(alice: DevNode, bob: DevNode) -> None:
    """It does not dial by itself."""
    with pytest.raises(PeerError, match="is not connected; connect to it first"):
        await alice.send(bob.id, b"\x77\x79")


async def test_a_connection_that_is_kept_is_opened_again(alice: DevNode, bob: DevNode) -> None:
    """Whichever side ends it, and as often as it ends; also after a message that bob does not accept."""
    await bob.connect(alice, keep=True)
    for end in (
        lambda: alice.disconnect(bob.id),
        lambda: bob.disconnect(alice.id),
        lambda: alice.send(bob.id, b"\x77\x78"),
    ):
        await end()
        await alice.until_connected(bob.id, connected=False)
        await alice.until_connected(bob.id)
        await bob.until_connected(alice.id)
    await alice.send(bob.id, b"\x77\x79")
    assert (await bob.next_message()).message == b"\x77\x79"


async def test_a_kept_connection_waits_for_a_node_that_is_away(tmp_path: Path, bob: DevNode) -> None:
    """It is there again as soon as the node is."""
    async with devnode.run(tmp_path / "node") as node:
        await bob.connect(node, keep=True)
        listen = str(node.address)
    await bob.until_connected(node.id, connected=False)
    async with devnode.run(tmp_path / "node", listen=listen) as node:
        await node.until_connected(bob.id)


async def test_an_even_type_that_is_not_accepted_ends_the_connection(alice: DevNode, bob: DevNode) -> None:
    """With lightningd's warning (connectd/multiplex.c)."""
    await alice.connect(bob)
    await alice.send(bob.id, b"\x77\x78\xaa\xbb")
    await alice.until_connected(bob.id, connected=False)
    assert len(bob.received) == 0
    async with raw_peer(bob) as raw:
        raw.send(b"\x77\x78\xaa\xbb")
        assert bolt1.Init.decode(await raw.receive() or b"").networks == (REGTEST,)
        assert await raw.receive() == bolt1.warning("Invalid unknown even msg 7778aabb")
        assert await raw.receive() is None


async def test_an_even_type_that_was_declared_is_accepted(tmp_path: Path, alice: DevNode) -> None:
    """And only that one."""
    async with devnode.run(tmp_path / "other", even_types={0x7778}) as other:
        await alice.connect(other)
        await alice.send(other.id, b"\x77\x78\xaa")
        assert (await other.next_message()).message == b"\x77\x78\xaa"
        await alice.send(other.id, b"\x77\x7a\xaa")
        await alice.until_connected(other.id, connected=False)


async def test_a_ping_is_answered(bob: DevNode) -> None:
    """With as many bytes as were asked for; 65,532 and more ask for no answer."""
    async with raw_peer(bob) as raw:
        raw.send(b"\0\x12\xff\xfc\0\0")
        raw.send(b"\0\x12\0\x03\0\x01\xff")
        await raw.receive()
        assert await raw.receive() == b"\0\x13\0\x03\0\0\0"


async def test_a_malformed_ping_ends_the_connection(bob: DevNode) -> None:
    """With lightningd's warning."""
    async with raw_peer(bob) as raw:
        raw.send(b"\0\x12\0")
        await raw.receive()
        assert await raw.receive() == bolt1.warning("Invalid ping 001200")
        assert await raw.receive() is None


async def test_an_error_ends_the_connection_and_a_warning_does_not(
    bob: DevNode, caplog: pytest.LogCaptureFixture
) -> None:
    """BOLT 1. The text is logged, without characters that could disturb a terminal."""
    async with raw_peer(bob) as raw:
        raw.send(bolt1.warning("mind \x1b the gap"))
        raw.send(b"\0\x11" + bytes(32) + b"\0\x04oops")
        await raw.receive()
        assert await raw.receive() is None
    assert "warns: mind ? the gap" in caplog.text


async def test_messages_about_gossip_and_channels_are_ignored(bob: DevNode) -> None:
    """Types that lightningd handles itself never come out as custom messages."""
    async with raw_peer(bob) as raw:
        for number in (32, 38, 136, 256, 257, 258, 261, 265, 513):
            raw.send(number.to_bytes(2, "big") + bytes(100))
        raw.send(b"\x77\x79")
        assert (await bob.next_message()).message == b"\x77\x79"


async def test_messages_under_two_bytes_are_passed_on(bob: DevNode) -> None:
    """lightningd passes them on too, so that plugins must cope with them."""
    async with raw_peer(bob) as raw:
        raw.send(b"")
        raw.send(b"\x77")
        assert [(await bob.next_message()).message for _ in range(2)] == [b"", b"\x77"]


async def test_messages_that_come_with_the_init_are_not_lost(bob: DevNode) -> None:
    """They may be in the same packet; unknown odd ones before the init are ignored (BOLT 1)."""
    async with raw_peer(bob, init=b"\x77\x7b") as raw:
        sealed = b"".join(
            raw.encryptor.encrypt(m) for m in (bolt1.Init(b"").encode(), b"\x77\x79\1", b"\x77\x79\2")
        )
        raw.writer.write(sealed)
        assert [(await bob.next_message()).message for _ in range(2)] == [b"\x77\x79\1", b"\x77\x79\2"]


async def test_a_peer_of_another_network_is_refused(tmp_path: Path, bob: DevNode) -> None:
    """With lightningd's warning."""
    async with raw_peer(bob, init=bolt1.Init(b"", (bytes(32),)).encode()) as raw:
        await raw.receive()
        assert await raw.receive() == bolt1.warning("No common network")
        assert await raw.receive() is None
    async with devnode.run(tmp_path / "signet", network="signet") as other:
        with pytest.raises(PeerError, match="Exchanging init messages"):
            await other.connect(f"{bob.id.hex()}@{bob.address}")


@pytest.mark.parametrize(
    "init", [b"", b"\0\x10", b"\0\x10\0\0\0\0\x04\x01\xff", b"\0\x12\0\0\0\0", b"\x77\x78"]
)
async def test_a_peer_whose_first_message_is_not_an_init_is_refused(bob: DevNode, init: bytes) -> None:
    """Nothing else may come first (BOLT 1)."""
    async with raw_peer(bob, init=init) as raw:
        await raw.receive()
        assert await raw.receive() is None
    assert len(bob.peers) == 0


async def test_the_newest_connection_of_a_peer_replaces_the_older_one(bob: DevNode) -> None:
    """The peer may have lost the old one without our noticing."""
    async with raw_peer(bob) as old:
        await bob.until_connected(old.id)
        async with raw_peer(bob) as new:
            await new.receive()
            await old.receive()
            assert await old.receive() is None
            new.send(b"\x77\x79")
            assert (await bob.next_message()).peer_id == new.id
            assert len(bob.peers) == 1


async def test_two_attempts_at_the_same_peer_become_one(alice: DevNode, bob: DevNode) -> None:
    """Neither ends the other's connection."""
    await asyncio.gather(*(alice.connect(bob) for _ in range(5)))
    await alice.send(bob.id, b"\x77\x79")
    await bob.next_message()
    assert len(bob.peers) == 1


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[DevNode]:
    """Run a node that gives peers little time for the handshake."""
    node = DevNode(Settings(tmp_path / "hasty", handshake_timeout=0.2))
    await node.start()
    yield node
    await node.stop()


async def test_a_peer_that_connects_and_sends_nothing_is_disconnected(hasty: DevNode) -> None:
    """At any point of the handshake, so that half-open connections do not pile up."""
    initiator = noise.Initiator(PrivateKey(b"\7" * 32), hasty.id)
    for beginning in (b"", b"\0", initiator.act_one()):
        reader, writer = await asyncio.open_connection(hasty.address.host, hasty.address.port)
        writer.write(beginning)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    async with raw_peer(hasty, init=b"\x77\x7b") as raw:
        await raw.receive()
        assert await raw.receive() is None


async def test_connecting_to_something_silent_fails_in_time(hasty: DevNode) -> None:
    """A listener that never answers."""
    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: silent.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(PeerError, match="Cryptographic handshake: Connection timed out"):
        await hasty.connect(f"{hasty.id.hex()}@127.0.0.1:{port}")
    server.close()
    silent[0].close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
async def test_garbage_instead_of_a_handshake_ends_the_connection(bob: DevNode, garbage: bytes) -> None:
    """Whatever it is, and the node goes on."""
    reader, writer = await asyncio.open_connection(bob.address.host, bob.address.port)
    writer.write(garbage)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert len(bob.peers) == 0


async def test_garbage_after_the_handshake_ends_the_connection(bob: DevNode) -> None:
    """A wrong MAC."""
    async with raw_peer(bob) as raw:
        await bob.until_connected(raw.id)
        raw.writer.write(bytes(100))
        await raw.receive()
        assert await raw.receive() is None
    await bob.until_connected(raw.id, connected=False)


async def test_a_peer_that_does_not_read_is_refused_more_beyond_a_limit(
    bob: DevNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lightningd would grow without bound instead."""
    monkeypatch.setattr(peer, "OUTBOX_LIMIT", 1_000_000)
    async with raw_peer(bob) as raw:
        await bob.until_connected(raw.id)
        connected = bob.peers.get(raw.id)
        assert connected is not None
        message = b"\x77\x79" + bytes(60_000)
        for _ in range(16):
            connected.send(message)
        with pytest.raises(devnode.OutboxFullError, match="bytes wait to be read"):
            connected.send(message)


async def test_a_silent_peer_is_pinged_and_then_dropped(
    bob: DevNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone without having closed the connection."""
    monkeypatch.setattr(peer, "PING_INTERVAL", 0.1)
    async with raw_peer(bob) as raw:
        await raw.receive()
        assert await raw.receive() == bolt1.ping()
        raw.send(b"\0\x13\0\0")
        assert await raw.receive() == bolt1.ping()
        await bob.until_connected(raw.id, connected=False)
