"""What the gateway does, in under 30 seconds: a round trip, a killed subscriber, messages that could harm the node.

`make demo` runs it. It starts a gateway on an embedded node. The node has one peer, which sends back what it receives.
It talks to the gateway only through the public client, its stubs and the command `custommsg`.
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
    """Run the demo."""
    say("Starting a gateway on an embedded Lightning node. Its one peer sends back what it receives ...")
    gateway = await start("custommsg-server", "try", "--json", "--listen", "127.0.0.1:0")
    try:
        started = await line_of(gateway)
        address, peer = started["address"], started["peer_id"]
        async with aio.connect(address) as client:
            await round_trip(client, peer)
            await kill_a_subscriber(client, address, peer)
            await harmful_messages(address, peer)
            check((await client.info()).node_link_up, "the node still answers")
            say("   the node still answers")
    finally:
        gateway.terminate()
        await gateway.communicate()
    say("Done. To try it yourself: make run")


async def round_trip(client: aio.Client, peer: str) -> None:
    """Send a message, and receive the peer's answer."""
    say("1. A round trip")
    subscription = client.subscribe(types=[TYPE])
    await subscription.start()
    sent = await client.send(peer, type=TYPE, payload=b"hello")
    say(f"   sent      type {TYPE}  hello   ({sent.status})")
    async for message in subscription:
        say(
            f"   received  type {message.type}  {message.payload.decode()}   from {message.peer_id_hex[:16]}..."
        )
        check(message.payload == b"hello", "the answer is what was sent")
        break
    await subscription.close()


async def kill_a_subscriber(client: aio.Client, address: str, peer: str) -> None:
    """Kill a subscriber while messages come in. When it is back, it gets what it missed."""
    say(f"2. A subscriber is killed while {COUNT} messages come in, and comes back")
    listen = ("listen", "--address", address, "--consumer", "demo", "--json")
    first = await start("custommsg", *listen)
    while not await client.consumers():  # noqa: ASYNC110 -- another process makes it
        await asyncio.sleep(0.05)
    sending = asyncio.create_task(send_numbers(client, peer))
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
    say(
        f"   the next subscriber of the same name started with number {again[0]} and got all up to {again[-1]}"
    )
    check(sorted({*got, *again}) == list(range(COUNT)), "nothing is lost")
    check(again == list(range(again[0], COUNT)), "they come in order, each once")
    say("   nothing was lost")


async def send_numbers(client: aio.Client, peer: str) -> None:
    """Send numbered messages, which the peer sends back."""
    for n in range(COUNT):
        await client.send(peer, type=TYPE, payload=str(n).encode())


async def harmful_messages(address: str, peer: str) -> None:
    """Send messages that make a lightningd exit, without the client's own checks."""
    say("3. The gateway refuses messages that would make lightningd exit")
    harmful = {
        "no bytes": "",
        "an odd number of hex digits": "9c410",
        "65,536 bytes": "9c41" + "00" * 65_534,
    }
    async with grpc.aio.insecure_channel(address) as channel:
        stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
        for what, msg_hex in harmful.items():
            message = pb.OutboundMsg(peer_id_hex=peer, msg_hex=msg_hex)
            try:
                await stub.SendCustomMsg(pb.SendCustomMsgRequest(message=message))
            except grpc.aio.AioRpcError as error:
                say(f"   a message with {what}: {error.code().name}")
                check(error.code() is grpc.StatusCode.INVALID_ARGUMENT, "it is refused")
            else:
                check(False, "it is refused")


async def start(program: str, *arguments: str) -> Process:
    """Start one of our programs."""
    return await asyncio.create_subprocess_exec(BIN / program, *arguments, stdout=PIPE, stderr=PIPE)


async def line_of(process: Process) -> dict[str, Any]:
    """Return the next JSON object that a program prints."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        _, errors = await process.communicate()
        sys.exit(f"A program of the demo ended early. It printed:\n{errors.decode()}")
    parsed: dict[str, Any] = json.loads(line)
    return parsed


async def number_of(listener: Process) -> int:
    """Return the number in the next message that `custommsg listen` prints."""
    return int(bytes.fromhex((await line_of(listener))["payload"]))


def number(line: bytes) -> int:
    """Return the number in a line that `custommsg listen` printed."""
    return int(bytes.fromhex(json.loads(line)["payload"]))


def check(holds: bool, what: str) -> None:
    """Exit with status 1 if something is not as expected."""
    if not holds:
        sys.exit(f"   The demo failed. Expected: {what}.")


def say(text: str) -> None:
    """Print a line for the person at the terminal."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), 60))
