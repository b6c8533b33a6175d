"""The honest participants: a peer within its budget, a consumer that acknowledges, and a sender."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from custommsg import aio
from custommsg.errors import CustomMsgError, PositionError, PositionExpired
from custommsg.events import Event, Interruption, Message
from custommsg_testing import devnode
from hostile.record import Delivered, Expired, Interrupted, Record, Send

if TYPE_CHECKING:
    from custommsg._aio_subscription import Subscription

RECEIVED_TYPE, SENT_TYPE = 0x9C41, 0x9C43
CONSUMER: Final = "honest"
RATE: Final = 40.0
"""Messages a second in each direction."""
SIZE: Final = 150
"""Bytes of a payload."""
ACK_EVERY: Final = 0.25
"""Seconds."""


class Honest:
    """All of them, until `stop`.

    Args:
        record: where to record what they see.
        peer: their node, a peer of the gateway's node.
        client: of the gateway.
        node: the gateway's node, as `id@host:port`.
        rpc_file: the node's socket.
    """

    def __init__(
        self, record: Record, peer: devnode.DevNode, client: aio.Client, node: str, rpc_file: Path
    ) -> None:
        self._record = record
        self._peer = peer
        self._client = client
        self._node_id = bytes.fromhex(node.partition("@")[0])
        self._rpc_file = rpc_file
        self._numbers = itertools.count(1)
        self._here = asyncio.Event()
        self._here.set()
        self._absences = 0
        self._subscription: Subscription[Event] | None = None
        self._unacknowledged = False
        self._tasks: list[asyncio.Task[None]] = []
        self._is_sending = True

    def start(self) -> None:
        """Start sending and receiving."""
        work = (self._send_as_peer, self._consume, self._acknowledge, self._send, self._ask_node)
        self._tasks = [asyncio.create_task(one()) for one in work]

    def check(self) -> None:
        """Raise the error that has ended one of them."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Have the consumer disconnect, and subscribe again later under the same name."""
        self._absences += 1
        self._here.clear()
        if self._subscription is not None:
            await self._subscription.close()
        try:
            yield
        finally:
            self._absences -= 1
            if not self._absences:
                self._here.set()

    async def finish(self, seconds: float) -> bool:
        """Send last messages until one of the peer's reaches the consumer; return whether that was in time.

        While lightningd is not attached, the node passes its messages to nobody, so one message is not enough.
        """
        self._is_sending = False
        last: set[int] = set()
        try:
            async with asyncio.timeout(seconds):
                while not last & set(self._record.positions.values()):
                    with suppress(devnode.PeerError):
                        last.add(await self._send_one())
                    await asyncio.sleep(0.25)
        except TimeoutError:
            return False
        return True

    async def works(self, seconds: float) -> bool:
        """Wait until a new message is received; return whether it was in time."""
        since = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                while not any(
                    self._record.sent[one.number] >= since
                    for one in self._record.stream[-50:]
                    if isinstance(one, Delivered)
                ):
                    self.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    # The peer.

    async def _send_as_peer(self) -> None:
        async for _ in _ticks(1 / RATE):
            if self._is_sending:
                with suppress(devnode.PeerError):  # not connected now
                    await self._send_one()

    async def _send_one(self) -> int:
        if self._peer.peers.get(self._node_id) is None:
            raise devnode.PeerError("not connected")
        number = next(self._numbers)
        self._record.sent[number] = time.monotonic()
        message = RECEIVED_TYPE.to_bytes(2, "big") + number.to_bytes(8, "big") + bytes(SIZE)
        with suppress(devnode.PeerError):  # it may have been sent nevertheless
            await self._peer.send(self._node_id, message)
        return number

    # The consumer.

    async def _consume(self) -> None:
        after: str | None = None
        while True:
            await self._here.wait()
            self._subscription = self._client.subscribe(
                types=[RECEIVED_TYPE],
                peers=[self._peer.id],
                consumer=CONSUMER,
                interruptions=True,
                after=after,
                from_beginning=after is None,
            )
            after = None
            try:
                async for event in self._subscription:
                    self._take(event)
            except PositionExpired as error:
                self._record.stream.append(Expired(time.monotonic()))
                self._record.faults["the honest consumer got POSITION_EXPIRED"] += 1
                after = error.earliest
            except PositionError as error:
                self._record.broken.append(f"the honest consumer got: {error}")
            except CustomMsgError as error:
                self._record.faults[f"the honest consumer got {error.reason}"] += 1
                await asyncio.sleep(0.2)

    def _take(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Message):
            number = int.from_bytes(event.payload[:8], "big")
            if (
                event.peer_id != self._peer.id
                or event.type != RECEIVED_TYPE
                or number not in self._record.sent
            ):
                self._record.broken.append(f"the consumer got a message that was never sent: {event}"[:300])
                return
            self._record.deliver(number, event.position, now)
            self._unacknowledged = True
        elif isinstance(event, Interruption) and event.position not in self._record.positions:
            self._record.positions[event.position] = 0
            self._record.stream.append(Interrupted(event.peer_id, event.lost, now))

    async def _acknowledge(self) -> None:
        async for _ in _ticks(ACK_EVERY):
            if self._unacknowledged and self._subscription is not None and self._here.is_set():
                self._unacknowledged = False
                with suppress(CustomMsgError, ValueError):  # messages that were not acknowledged come again
                    await self._subscription.ack()

    # The sender.

    async def _send(self) -> None:
        listening = asyncio.create_task(self._hear())
        try:
            number = 0
            async for _ in _ticks(1 / RATE):
                if self._is_sending:
                    number += 1
                    await self._call(number)
        finally:
            listening.cancel()

    async def _call(self, number: int) -> None:
        payload = number.to_bytes(8, "big") + bytes(SIZE)
        begin, outcome = time.monotonic(), "OK"
        try:
            await self._client.send(self._peer.id, type=SENT_TYPE, payload=payload)
        except CustomMsgError as error:
            outcome = str(error.reason)
        self._record.end_send(number, Send(begin, time.monotonic(), outcome))

    async def _hear(self) -> None:
        async for received in self._peer.received:
            if received.type == SENT_TYPE:
                self._record.heard.append(int.from_bytes(received.payload[:8], "big"))

    # The node itself, for comparison.

    async def _ask_node(self) -> None:
        message = (SENT_TYPE + 2).to_bytes(2, "big") + bytes(SIZE)
        params = {"node_id": self._peer.id.hex(), "msg": message.hex()}
        request = {"jsonrpc": "2.0", "id": "n", "method": "sendcustommsg", "params": params}
        async for _ in _ticks(1 / RATE):
            with suppress(OSError, EOFError):  # it was killed
                reader, writer = await asyncio.open_unix_connection(self._rpc_file)
                with closing(writer):
                    async for _ in _ticks(1 / RATE):
                        begin = time.monotonic()
                        writer.write(json.dumps(request).encode())
                        await reader.readuntil(b"\n\n")
                        self._record.asked.append((begin, time.monotonic()))


async def _ticks(seconds: float) -> AsyncIterator[None]:
    """Yield at equal intervals; skip those that were missed."""
    due = time.monotonic()
    while True:
        due = max(due + seconds, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        yield
