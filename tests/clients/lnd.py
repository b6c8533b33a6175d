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
from .stage import Stage, receive_all, rows, send_all, server_certificate, staged

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
        return stage.address, directory / "ca.pem", made.hex() if hex_digits else file

    settings = server_certificate(directory, "127.0.0.1")
    async with staged(directory, insecure=False, **settings) as stage:
        stage.node.announce(stage.peer)
        rune = (await stage.node_call("createrune"))["rune"]
        seen: list[tuple[str, str, object]] = []
        async with running(*program, *arguments(rune)) as client:
            if "send" in calls:
                seen += rows(calls["send"], await send_all(client, stage))
            if "subscribe" in calls:
                seen += rows(calls["subscribe"], await receive_all(client, stage))
            seen += await questions(client, stage, calls)
            seen += await connections(client, stage, calls, directory)
        if "foreign" in calls:
            async with running(*program, *arguments(FOREIGN)) as stranger:
                outcome = await stranger.call("info")
            seen.append((calls["info"], "with a macaroon of another node's rune", outcome))
    table.check(name, seen)


async def questions(client: Client, stage: Stage, calls: Mapping[str, str]) -> list[tuple[str, str, object]]:
    """Make the calls with which programs begin."""
    expected = {
        "info": f"{stage.node.alias} {stage.node.id.hex()} 1",
        "peers": stage.peer.id.hex(),
        "node": f"{stage.peer.alias} {stage.peer.address}",
        "version": None,
        "state": None,
        "channels": None,
    }
    seen: list[tuple[str, str, object]] = []
    for call, text in expected.items():
        if call not in calls:
            continue
        given = {"peer": stage.peer.id.hex()} if call == "node" else {}
        outcome = await client.call(call, **given)
        assert text in (None, outcome.text), outcome
        seen.append((calls[call], "a node known from gossip" if call == "node" else "", outcome))
    return seen


async def connections(
    client: Client, stage: Stage, calls: Mapping[str, str], directory: Path
) -> list[tuple[str, str, object]]:
    """Connect to peers, and disconnect; see both as events."""
    seen: list[tuple[str, str, object]] = []
    async with devnode.run(directory / "other") as other:
        for case, peer, host in (
            ("a node that listens", other.id, other.address),
            ("a peer that is connected", stage.peer.id, stage.peer.address),
            ("the node itself", stage.node.id, stage.node.address),
            ("an address without a node", node_id(), "127.0.0.1:1"),
        ):
            outcome = await client.call("connect", peer=peer.hex(), host=str(host))
            seen.append((calls["connect"], case, outcome))
        await other.until_connected(stage.node.id)
        if "disconnect" not in calls:
            return seen
        for case, peer in (("a peer that is connected", other.id), ("an unknown peer", node_id())):
            seen.append((calls["disconnect"], case, await client.call("disconnect", peer=peer.hex())))
        await other.until_connected(stage.node.id, connected=False)
        if "events" in calls:
            seen.append((calls["events"], "a peer that connects", await events(client, stage, other)))
    return seen


async def events(client: Client, stage: Stage, other: devnode.DevNode) -> object:
    """Have a peer connect and disconnect until the client has seen both."""
    outcome = await client.call("events")
    connected = False
    while not connected:
        # The client does not tell when it is registered: the first events may be missed.
        await other.connect(stage.node)
        await stage.node.disconnect(other.id)
        await other.until_connected(stage.node.id, connected=False)
        try:
            while True:
                event = await client.event(timeout=0.5)
                if event[0] == other.id:
                    connected |= event[1] == b"\x01"
        except TimeoutError:
            pass
    return outcome
