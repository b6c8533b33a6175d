"""The client for asyncio.

async with custommsg.aio.connect("127.0.0.1:9737") as client:
    await client.send(peer, type=37913, payload=b"hello")
    async for message in client.subscribe(types=[37913]):
        print(message.node_id_hex, message.payload)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload
from weakref import WeakSet

import grpc
import grpc.aio

from custommsg import _core
from custommsg._aio_sender import Sender
from custommsg._aio_subscription import Subscription
from custommsg._credentials import File, channel_credentials, checked_rune, showing
from custommsg._cursor import Cursor
from custommsg._filter import sequence_number, subscribe_request
from custommsg._reconnect import Reconnects
from custommsg._retry import Attempts, checked_timeout
from custommsg._status import from_rpc
from custommsg.events import Event, Message
from custommsg.model import Checked, Consumer, Inbox, Info, Outbound, Peer, Result, Sent
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceStub

if TYPE_CHECKING:
    from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceAsyncStub  # exists in the .pyi alone

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def connect(
    address: str = _core.DEFAULT_ADDRESS,
    *,
    timeout: float = 10.0,
    retry: bool = True,
    credentials: grpc.ChannelCredentials | None = None,
    ca: File | None = None,
    cert: File | None = None,
    key: File | None = None,
    rune: str | None = None,
) -> Client:
    """Make a client of the gateway at `address`, inside a running event loop.

    It connects with the first call, and again by itself after the connection was lost. One client serves any
    number of tasks at once.

    Args:
        address: "host:port", "[ipv6]:port" or "unix:/path".
        timeout: seconds for a call that gives none of its own, all its tries together.
        retry: try again, until the timeout, where the gateway says that nothing was sent and when to come
            back. A call whose outcome is unknown is never tried again.
        credentials: for TLS; None for a connection in the clear, unless there are files:
        ca: PEM: what the gateway's certificate is signed by.
        cert: PEM: our certificate, where the gateway asks for one.
        key: PEM: its key.
        rune: what `lightning-cli createrune` printed; it is shown with each call.

    Raises:
        ValueError: an address, a timeout, a rune or a set of files that is none.
        OSError: a file cannot be read.
    """
    return Client(
        address,
        timeout=timeout,
        retry=retry,
        credentials=channel_credentials(credentials, ca, cert, key),
        rune=checked_rune(rune),
    )


class Client:
    """A client of one gateway; made by `connect`, closed by `async with` or `close`."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float,
        retry: bool,
        credentials: grpc.ChannelCredentials | None,
        rune: str | None = None,
    ) -> None:
        target = _core.target(address)
        self._timeout = checked_timeout(timeout)
        self._retry = retry
        self._subscriptions: WeakSet[Subscription[Event]] = WeakSet()
        self._senders: WeakSet[Sender] = WeakSet()
        options = _core.CHANNEL_OPTIONS
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials is not None
            else grpc.aio.insecure_channel(target, options)
        )
        self._stub: CustomMsgServiceAsyncStub = CustomMsgServiceStub(showing(self._channel, rune))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection.

        Subscriptions and senders end, calls in flight are cancelled; closing twice does no harm.
        """
        for sender in list(self._senders):
            await sender.abort()
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._channel.close()

    async def send(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send one custom message to one connected peer.

        To return means that the node has queued it, not that the peer has it. See SendCustomMsg in
        custommsg.proto for each guarantee.

        Args:
            peer: its node id: 33 bytes, or 66 hex digits.
            type: the message's type, 0 to 65,535; together with `payload`, instead of `msg`.
            payload: what follows the type, up to 65,533 bytes; none by default.
            msg: the whole message with its type, 2 to 65,535 bytes, or the same in hex.
            timeout: seconds, all tries together; None for the client's.

        Raises:
            InvalidRequest, PeerUnknown, PeerNotConnected, NotSent, NodeError: nothing was sent.
            OutcomeUnknown: it may have been sent.
            CustomMsgError: refused for another reason; nothing was sent.
        """
        request = _core.send_request(peer, type=type, payload=payload, msg=msg, validate_only=False)
        return _core.sent(await self._call(self._stub.SendCustomMsg, request, timeout, sends=True))

    def sender(self) -> Sender:
        """Make a sender for many messages on one stream: `send` without the cost of a call for each.

        async with client.sender() as sender:
            await sender.send(peer, type=37913, payload=b"hello")
        """
        sender = Sender(self._stub, timeout=self._timeout, retry=self._retry)
        self._senders.add(sender)
        return sender

    async def send_many(
        self, messages: Iterable[Outbound] | AsyncIterable[Outbound], *, timeout: float | None = None
    ) -> AsyncGenerator[Result]:
        """Send many messages, and yield what became of each; none is raised, and none is left out.

        Messages to one peer are sent in the order of the input, or not at all. Results are yielded as they
        come, so that one that is waited for holds up no other: their `index` tells which they are. Some
        thousand messages are on their way at once; a result that is not taken holds the input back.

        Who stops before the end ends it, with `contextlib.aclosing` at once: what was not written is not sent.

        Args:
            messages: to be iterated here, no faster than they are sent. Where that is slow, make it an
                asynchronous one: it would hold up the event loop.
            timeout: seconds for each message, from when it was taken from the input; None for the client's.

        Raises:
            TypeError: a message that is given in neither way, or in both.
        """
        async with self.sender() as sender, aclosing(sender.send_many(messages, timeout=timeout)) as results:
            async for result in results:
                yield result

    async def check(
        self,
        peer: bytes | str,
        *,
        type: int | None = None,
        payload: bytes | None = None,
        msg: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Checked:
        """Run every check that `send` would, the node's own included, and send nothing.

        Arguments and errors are those of `send`, but for OutcomeUnknown: there is nothing unknown about it.
        """
        request = _core.send_request(peer, type=type, payload=payload, msg=msg, validate_only=True)
        return _core.checked(await self._call(self._stub.SendCustomMsg, request, timeout, sends=False))

    @overload
    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: int | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        inbox_id: str | None = None,
        peer_events: Literal[False] = False,
        interruptions: Literal[False] = False,
        timeout: float | None = None,
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: int | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        inbox_id: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        timeout: float | None = None,
    ) -> Subscription[Event]: ...

    def subscribe(
        self,
        *,
        types: Iterable[int | range] | None = None,
        peers: Iterable[bytes | str] | None = None,
        after: int | None = None,
        from_beginning: bool = False,
        consumer: str | None = None,
        inbox_id: str | None = None,
        peer_events: bool = False,
        interruptions: bool = False,
        timeout: float | None = None,
    ) -> Subscription[Event]:
        """Receive what peers send to the node, from now on or from an earlier position.

        The subscription connects again by itself and goes on where it stopped, in order, each event once. It
        ends when it is closed, or with an error after which trying again cannot help. Nothing is skipped in
        silence: what the inbox does not hold any more is a PositionExpired; and where the gateway itself may
        have missed messages stands an Interruption, yielded if `interruptions` asks for it, and else logged
        as a warning by the logger "custommsg", which Python shows on stderr unless told otherwise.

        Args:
            types: only messages of these types, each a number or a range as Python means it; None for all.
            peers: only events of these peers, each 33 bytes or 66 hex digits; None for all.
            after: start after this sequence number: where an earlier subscription stopped.
            from_beginning: start with the oldest event that is kept.
            consumer: a name under which the gateway keeps the position that `ack` gives it. A later
                subscription of that name goes on there, whatever `after` and `from_beginning` say. While
                nothing that was yielded waits for its ack, the subscription moves it on by itself.
            inbox_id: the inbox that `after` belongs to: if the gateway has another now, PositionExpired.
            peer_events: yield PeerConnected and PeerDisconnected too.
            interruptions: yield Interruption too.
            timeout: seconds until it must be registered, at first as after each reconnect; None for the
                client's. Until then it fails like other calls; once registered, it goes on without a limit.

        Raises:
            InvalidRequest: INVALID_FILTER or INVALID_NODE_ID. (All other errors come with the iteration.)
            TypeError, ValueError: arguments that mean no subscription.
        """
        request = subscribe_request(
            types=types,
            peers=peers,
            after=after,
            from_beginning=from_beginning,
            consumer=consumer,
            inbox_id=inbox_id,
            peer_events=peer_events,
        )
        reconnects = Reconnects(self._timeout if timeout is None else timeout, retry=self._retry)
        cursor = Cursor(request, interruptions=interruptions)
        subscription: Subscription[Event] = Subscription(self._stub, cursor, reconnects, self.ack)
        self._subscriptions.add(subscription)
        return subscription

    async def ack(self, consumer: str, sequence: int, *, timeout: float | None = None) -> int:
        """Store how far a named consumer has come, so that its next subscription goes on there.

        Args:
            consumer: its name.
            sequence: everything up to this sequence number is dealt with: of an event, or a `position`.
            timeout: seconds, all tries together; None for the client's.

        Returns:
            Where the consumer is now: a position never moves back.

        Raises:
            InvalidRequest: INVALID_CONSUMER.
            ConsumerUnknown: no subscription has given that name, or it was deleted.
            PositionExpired: the inbox has not come that far.
            NotSent: the gateway or the inbox could not be reached; it is safe to try again.
            CustomMsgError: any other failure.
        """
        request = pb.AckCustomMsgsRequest(consumer=consumer, sequence=sequence_number(sequence))
        response = await self._call(self._stub.AckCustomMsgs, request, timeout, sends=False)
        return response.position

    async def consumers(self, *, timeout: float | None = None) -> list[Consumer]:
        """List the named consumers and how far each has come.

        Raises:
            NotSent: the gateway or the inbox could not be reached, or not in time (`timeout` in seconds).
            CustomMsgError: any other failure.
        """
        request = pb.ListConsumersRequest()
        return _core.consumers(await self._call(self._stub.ListConsumers, request, timeout, sends=False))

    async def delete_consumer(self, consumer: str, *, timeout: float | None = None) -> None:
        """Forget a named consumer.

        Raises:
            ConsumerUnknown: there is none of that name.
            NotSent: the gateway or the inbox could not be reached, or not in time (`timeout` in seconds).
            CustomMsgError: any other failure.
        """
        request = pb.DeleteConsumerRequest(consumer=consumer)
        await self._call(self._stub.DeleteConsumer, request, timeout, sends=False)

    async def inbox(self, *, timeout: float | None = None) -> Inbox:
        """Say what the inbox holds now.

        Raises:
            NotSent: the gateway or the inbox could not be reached, or not in time (`timeout` in seconds).
            CustomMsgError: any other failure.
        """
        return _core.inbox(await self._call(self._stub.GetInbox, pb.GetInboxRequest(), timeout, sends=False))

    async def peers(self, *, timeout: float | None = None) -> list[Peer]:
        """List the peers that the node knows now, in no particular order.

        Raises:
            NotSent: the gateway or the node could not be reached, or not in time (`timeout` in seconds).
            CustomMsgError: any other failure.
        """
        return _core.peers(
            await self._call(self._stub.ListPeers, pb.ListPeersRequest(), timeout, sends=False)
        )

    async def info(self, *, timeout: float | None = None) -> Info:
        """Describe the gateway, its node, and the link between the two.

        Raises:
            NotSent: the gateway could not be reached, or not in time (`timeout` in seconds).
            CustomMsgError: any other failure.
        """
        return _core.info(await self._call(self._stub.GetInfo, pb.GetInfoRequest(), timeout, sends=False))

    async def _call(
        self,
        rpc: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        *,
        sends: bool,
    ) -> _Response:
        attempts = Attempts(self._timeout if timeout is None else timeout, retry=self._retry)
        while True:
            try:
                return await rpc(request, timeout=attempts.time_left())
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error, sends=sends)
                wait = attempts.wait_after(failure)
                if wait is None:
                    raise failure from error
            await asyncio.sleep(wait)
