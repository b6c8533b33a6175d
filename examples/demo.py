"""The whole story in half a minute: a round trip, a subscriber killed and resumed, a poison message refused.

`make demo` runs it. It starts a gateway on an embedded node whose one peer sends back what it gets, and talks
to it only through the public client and the `custommsg` command.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import grpc

from custommsg import aio
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc

BIN = Path(sys.executable).parent
TYPE = 40001
COUNT = 200


async def main() -> None:
    """Play it."""
    say("Starting a gateway on an embedded Lightning node with one peer, which sends back what it gets ...")
    gateway = await start("custommsg-server", "try", "--json", "--listen", "127.0.0.1:0")
    try:
        stage = await line_of(gateway)
        async with aio.connect(stage["address"]) as client:
            await round_trip(client, stage["peer_id"])
            await kill_a_subscriber(client, stage)
            await poison(stage)
            check((await client.info()).node_link_up, "the node lives")
            say("   the node lives")
    finally:
        gateway.terminate()
        await gateway.communicate()
    say("That was it. The next thing to try: make run")


async def round_trip(client: aio.Client, peer: str) -> None:
    """Send a message, and receive the peer's answer."""
    say("1. A round trip")
    subscription = client.subscribe(types=[TYPE])
    await subscription.start()
    sent = await client.send(peer, type=TYPE, payload=b"hello")
    say(f"   sent      type {TYPE}  hello   ({sent.status})")
    async for message in subscription:
        say(
            f"   received  type {message.type}  {message.payload.decode()}   from {message.node_id_hex[:16]}..."
        )
        check(message.payload == b"hello", "the answer is what was sent")
        break
    await subscription.close()


async def kill_a_subscriber(client: aio.Client, stage: dict[str, Any]) -> None:
    """Kill a subscriber in the middle of a stream of messages; what it missed is there when it comes back."""
    say(f"2. A subscriber is killed while {COUNT} messages come in, and comes back")
    listen = ("listen", "--address", stage["address"], "--consumer", "demo", "--json")
    first = await start("custommsg", *listen)
    while not await client.consumers():  # noqa: ASYNC110 -- another process makes it
        await asyncio.sleep(0.05)
    sending = asyncio.create_task(send_numbers(client, stage["peer_id"]))
    got = [await number_of(first) for _ in range(50)]
    first.kill()
    got += [number(line) for line in (await first.communicate())[0].splitlines()]
    say(f"   kill -9 after it printed {len(got)} of them")
    await sending
    second = await start("custommsg", *listen)
    again = [await number_of(second)]
    while again[-1] < COUNT - 1:
        again.append(await number_of(second))
    second.terminate()
    await second.communicate()
    say(f"   the next one of its name resumed at number {again[0]} and got all up to {again[-1]}")
    check(sorted({*got, *again}) == list(range(COUNT)), "nothing is lost")
    check(again == list(range(again[0], COUNT)), "in order, none twice")
    say("   nothing lost")


async def send_numbers(client: aio.Client, peer: str) -> None:
    """Send numbered messages, which the peer sends back."""
    for n in range(COUNT):
        await client.send(peer, type=TYPE, payload=str(n).encode())


async def poison(stage: dict[str, Any]) -> None:
    """Try messages that kill a lightningd, past the client's own checks."""
    say("3. Messages that would take a lightningd down are refused by the gateway")
    poisons = {
        "empty": "",
        "of an odd number of hex digits": "9c410",
        "of 65,536 bytes": "9c41" + "00" * 65_534,
    }
    async with grpc.aio.insecure_channel(stage["address"]) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        for what, msg_hex in poisons.items():
            request = pb.SendCustomMsgRequest(node_id_hex=stage["peer_id"], msg_hex=msg_hex)
            try:
                await stub.SendCustomMsg(request)
            except grpc.aio.AioRpcError as error:
                say(f"   a message that is {what}: {error.code().name}")
                check(error.code() is grpc.StatusCode.INVALID_ARGUMENT, "poison is refused")
            else:
                check(False, "poison is refused")


async def start(program: str, *arguments: str) -> Process:
    """Start one of our programs."""
    return await asyncio.create_subprocess_exec(BIN / program, *arguments, stdout=PIPE, stderr=PIPE)


async def line_of(process: Process) -> dict[str, Any]:
    """Return the next JSON object that a program prints."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        _, errors = await process.communicate()
        sys.exit(f"A program of the demo ended early. It said:\n{errors.decode()}")
    parsed: dict[str, Any] = json.loads(line)
    return parsed


async def number_of(listener: Process) -> int:
    """Return the number in the next message that `custommsg listen` prints."""
    return int(bytes.fromhex((await line_of(listener))["payload"]))


def number(line: bytes) -> int:
    """Return the number in a line that `custommsg listen` printed."""
    return int(bytes.fromhex(json.loads(line)["payload"]))


def check(holds: bool, what: str) -> None:
    """End with 1 where the story does not go as told."""
    if not holds:
        sys.exit(f"   This should hold and does not: {what}")


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), 60))
