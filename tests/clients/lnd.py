"""What a client of LND is asked to do, beside sending and receiving."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from custommsg_server.access import macaroon
from custommsg_testing import devnode
from support.keys import node_id

from . import table
from .programs import Client, running
from .rig import Rig, receive_all, rows, running_rig, send_all, server_certificate

FOREIGN: Final = "zVqGWdlTMnPLjGrTjcjeXkTV6DPvMcSHzuSFe5SkfRk9MCZtZXRob2Q9c2VuZGN1c3RvbW1zZw=="
"""A rune of another node."""


async def check(
    name: str, directory: Path, program: tuple[str | Path, ...], calls: Mapping[str, str], *, hex_digits: bool
) -> None:
    """Have a client make its calls, and compare the outcomes with the table.

    Args:
        name: the client's name and version.
        directory: an empty one.
        program: the client, without its arguments.
        calls: the client's own name of each call that it has.
        hex_digits: whether it is given its macaroon as hex digits; else as a file.
    """

    def arguments(rune: str) -> tuple[str | Path, ...]:
        made, file = macaroon.make(rune), directory / f"{len(list(directory.iterdir()))}.macaroon"
        file.write_bytes(made)
        return rig.address, directory / "ca.pem", made.hex() if hex_digits else file

    settings = server_certificate(directory, "127.0.0.1")
    async with running_rig(directory, insecure=False, **settings) as rig:
        rig.node.announce(rig.peer)
        rune = (await rig.node_call("createrune"))["rune"]
        seen: list[tuple[str, str, object]] = []
        async with running(*program, *arguments(rune)) as client:
            if "send" in calls:
                seen += rows(calls["send"], await send_all(client, rig))
            if "subscribe" in calls:
                seen += rows(calls["subscribe"], await receive_all(client, rig))
            seen += await questions(client, rig, calls)
            seen += await connections(client, rig, calls, directory)
        if "foreign" in calls:
            async with running(*program, *arguments(FOREIGN)) as stranger:
                outcome = await stranger.call("info")
            seen.append((calls["info"], "with a macaroon of another node's rune", outcome))
    table.check(name, seen)


async def questions(client: Client, rig: Rig, calls: Mapping[str, str]) -> list[tuple[str, str, object]]:
    """Make the calls with which programs begin."""
    expected = {
        "info": f"{rig.node.alias} {rig.node.id.hex()} 1",
        "peers": rig.peer.id.hex(),
        "node": f"{rig.peer.alias} {rig.peer.address}",
        "version": None,
        "state": None,
        "channels": None,
    }
    seen: list[tuple[str, str, object]] = []
    for call, text in expected.items():
        if call not in calls:
            continue
        given = {"peer": rig.peer.id.hex()} if call == "node" else {}
        outcome = await client.call(call, **given)
        assert text in (None, outcome.text), outcome
        seen.append((calls[call], "a node known from gossip" if call == "node" else "", outcome))
    return seen


async def connections(
    client: Client, rig: Rig, calls: Mapping[str, str], directory: Path
) -> list[tuple[str, str, object]]:
    """Connect to peers, and disconnect; see both as events."""
    seen: list[tuple[str, str, object]] = []
    async with devnode.run(directory / "other") as other:
        for case, peer, host in (
            ("a node that listens", other.id, other.address),
            ("a peer that is connected", rig.peer.id, rig.peer.address),
            ("the node itself", rig.node.id, rig.node.address),
            ("an address without a node", node_id(), "127.0.0.1:1"),
        ):
            outcome = await client.call("connect", peer=peer.hex(), host=str(host))
            seen.append((calls["connect"], case, outcome))
        await other.until_connected(rig.node.id)
        if "disconnect" not in calls:
            return seen
        for case, peer in (("a peer that is connected", other.id), ("an unknown peer", node_id())):
            seen.append((calls["disconnect"], case, await client.call("disconnect", peer=peer.hex())))
        await other.until_connected(rig.node.id, connected=False)
        if "events" in calls:
            seen.append((calls["events"], "a peer that connects", await events(client, rig, other)))
    return seen


async def events(client: Client, rig: Rig, other: devnode.DevNode) -> object:
    """Have a peer connect and disconnect until the client has seen both."""
    outcome = await client.call("events")
    connected = False
    while not connected:
        # The client does not tell when it is registered: the first events may be missed.
        await other.connect(rig.node)
        await rig.node.disconnect(other.id)
        await other.until_connected(rig.node.id, connected=False)
        try:
            while True:
                event = await client.event(timeout=0.5)
                if event[0] == other.id:
                    connected |= event[1] == b"\x01"
        except TimeoutError:
            pass
    return outcome
